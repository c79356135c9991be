"""Score a model on questions of your own, by ANLS (1 is right, small misspellings cost little).

python examples/evaluate_own_samples.py out/student-4x questions.csv out/own-questions

The CSV file has the columns image, question and answer; image is a path relative to the file.
"""

import csv
import sys
from pathlib import Path

from fcot_vl.data.dataset import Sample
from fcot_vl.data.images import open_image
from fcot_vl.stages.evaluate import evaluate

model, table, output = map(Path, sys.argv[1:])
with table.open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
samples = [
    Sample(
        id=f"row-{number}",
        images=[open_image(table.parent / row["image"])],
        messages=[{"role": "user", "content": row["question"]}],
        task="own",
        source=table.name,
        answers=[row["answer"]],
        metric="anls",
    )
    for number, row in enumerate(rows)
]
result = evaluate(model, samples, output, stage="post-train")
print("ANLS:", round(result["mean_over_tasks"], 3))
print("visual tokens per question:", result["visual_tokens_nominal"])
