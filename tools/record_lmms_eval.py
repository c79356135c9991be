"""Record what lmms-eval asks, and how it scores predictions, for `tests/unit/evaluate/test_public.py` to compare with.

    python -m venv other && other/bin/pip install lmms-eval==0.7.3
    other/bin/python tools/record_lmms_eval.py

lmms-eval is no dependency and none of its code is here; it is run once, in an environment of its own, over made-up
rows in each benchmark's columns. Its own task objects make the prompt, filter a prediction, score it and aggregate the
scores, so that nothing of that is ours. `tests/data/lmms-eval/NAME.json`: rows without their images, prompts, the
limit of new tokens, where the data lies, and rounds of predictions, each with every row's score and the aggregates.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from datasets import Dataset, DatasetDict, Features, List, Value
from datasets import Image as Picture
from PIL import Image

DATA = Path(__file__).resolve().parents[1] / "tests" / "data" / "lmms-eval"
ROUNDS = 12
TASKS = {  # ours: (lmms-eval's task, its configuration file)
    "docvqa": ("docvqa", "docvqa_val.yaml"),
    "infovqa": ("infovqa", "infovqa_val.yaml"),
    "chartqa": ("chartqa", "chartqa.yaml"),
    "textvqa": ("textvqa", "textvqa_val.yaml"),
    "ocrbench": ("ocrbench", "ocrbench.yaml"),
    "ai2d": ("ai2d", "ai2d.yaml"),
    "scienceqa": ("scienceqa", "scienceqa_img.yaml"),
    "mme": ("mme", "mme.yaml"),
}
WORDS = [
    *(
        "Total",
        "no",
        "YES",
        "Coca-Cola",
        "St. Louis",
        "a cat",
        "the dog",
        "twenty",
        "two",
        "None",
        "won't",
        "dont",
    ),
    *(
        "St.  Louis , MO",
        "two  lines of a long answer",
        "12.5%",
        "0.125",
        "1,234",
        "1234",
        "94.9",
        "100",
        "0",
        "-3",
        "7:30 p.m.",
        "50 %",
        "$5",
        "2.",
        "it's",
        "naïve",
    ),
    *("Straße", "ﬁle", "New  York", "ＡＢＣ　１", "x", "x^2 + 1", "\\frac{a}{b}", "A. apple", "answer: 42"),
]
TYPES = [
    *("Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition"),
    *("Handwriting Recognition", "Digit String Recognition", "Non-Semantic Text Recognition"),
    *("Scene Text-centric VQA", "Doc-oriented VQA", "Key Information Extraction"),
    "Handwritten Mathematical Expression Recognition",
]
CATEGORIES = [
    *(
        "existence",
        "count",
        "position",
        "color",
        "posters",
        "celebrity",
        "scene",
        "landmark",
        "artwork",
        "OCR",
    ),
    *("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
]
QUESTIONS = [
    " What is the total? ",
    "which Brand is it?",
    "What does DNA mean?",
    "Read the sign.\nLine two",
    "who?",
]


def rows_of(name: str, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Made-up rows in the columns of a benchmark."""
    for at in range(28):
        question = draw.choice(QUESTIONS) + (f" ({at})" if at % 2 else "")
        words = [draw.choice(WORDS) for _ in range(5)]
        if name in ("docvqa", "infovqa"):
            yield {"questionId": str(1000 + at), "question": question, "answers": words[: 1 + at % 3]}
        elif name == "chartqa":
            yield {
                "question": question,
                "answer": words[0],
                "type": draw.choice(["human_test", "augmented_test"]),
            }
        elif name == "textvqa":
            people = [draw.choice(words[:3]) for _ in range(10)]
            yield {"question": question, "answers": people, "question_id": 34602 + at}
        elif name == "ocrbench":
            kind = TYPES[at % len(TYPES)]
            source = "HME100k" if kind == TYPES[-1] else "IAM"
            yield {
                "dataset": source,
                "question": question,
                "question_type": kind,
                "answer": words[: 1 + at % 2],
            }
        elif name == "ai2d":
            yield {"question": question, "options": words[:4], "answer": str(at % 4)}
        elif name == "scienceqa":
            hint = "" if at % 3 else "Look at the picture."
            yield {"question": question, "choices": words[: 2 + at % 3], "answer": at % 2, "hint": hint}
        else:
            for answer in ("Yes", "No"):
                asked = f" Is it a {words[0]}? Please answer yes or no."
                category = CATEGORIES[at % len(CATEGORIES)]
                page = f"{category}/{at:04}.png"
                yield {"question_id": page, "question": asked, "answer": answer, "category": category}


def right_answer(name: str, row: dict[str, Any]) -> str:
    if name in ("ai2d", "scienceqa"):
        return "ABCDE"[int(row["answer"])]
    found = row.get("answers", row.get("answer"))
    return str(found[0] if isinstance(found, list) else found)


def variants(text: str) -> list[Callable[[], str]]:
    """The right answer, and near misses of it."""
    return [
        lambda: text,
        lambda: text,
        lambda: f" {text}\n",
        lambda: text.upper(),
        lambda: text.lower() + ".",
        lambda: f"{text}. because",
        lambda: f"The answer is {text}.",
        lambda: f"({text})",
        lambda: text.replace(" ", "  "),
        lambda: text.replace(" ", "\n"),
        lambda: text[:-1],
        lambda: text + "x",
        lambda: "",
    ]


def predictions_of(name: str, rows: list[dict[str, Any]], draw: random.Random) -> list[str]:
    """A round: of half the rows something like the right answer, of the others anything."""
    own = {
        "ai2d": ["A", "b", "C. cat", "D.", " A. x", "E", "(B)", "A.B", "a. x"],
        "scienceqa": ["A", "b", "B. cat", "a. x", "C.", "(A)"],
        "mme": ["Yes", "no.", "Y", "n", "yes, it is", "Not", "I know", "No way", "other", "noyes", "."],
        "chartqa": ["95", "99.6", "105", "12.5", "0.13", "nan", "inf", "1e2", "12%"],
    }.get(name, [])
    made = []
    for row in rows:
        if draw.random() < 0.55:
            made.append(draw.choice(variants(right_answer(name, row)))())
        else:
            made.append(draw.choice([*own, *own, *WORDS]))
    return made


def open_task(name: str, rows: list[dict[str, Any]], temporary: Path) -> tuple[Any, dict[str, Any]]:
    """lmms-eval's task over our rows, and where it finds its own."""
    import lmms_eval
    from lmms_eval.api.task import ConfigurableTask
    from lmms_eval.utils import load_yaml_config

    folder, file = TASKS[name]
    config = load_yaml_config(yaml_path=str(Path(lmms_eval.__file__).parent / "tasks" / folder / file))
    where = {
        "hub": config["dataset_path"],
        "config": config.get("dataset_name"),
        "split": config["test_split"],
    }
    columns: dict[str, Any] = {key: _feature(value) for key, value in rows[0].items()}
    features = Features({**columns, "image": Picture()})
    white = Image.new("RGB", (8, 8), "white")
    data = Dataset.from_list([{**row, "image": white} for row in rows], features=features)
    DatasetDict({config["test_split"]: data}).save_to_disk(temporary / name)
    config |= {
        "dataset_path": str(temporary / name),
        "dataset_name": None,
        "dataset_kwargs": {"load_from_disk": True},
    }
    return ConfigurableTask(config=config), where


def _feature(value: Any) -> Any:
    return (
        List(_feature(value[0]))
        if isinstance(value, list)
        else Value("int64" if isinstance(value, int) else "string")
    )


def score(task: Any, docs: list[Any], predictions: list[str], temporary: Path) -> dict[str, Any]:
    """Each row's numbers and the aggregates, as lmms-eval's evaluator makes them."""
    [ensemble] = task._filters
    instances = [
        SimpleNamespace(resps=[text], filtered_resps={}, doc=doc)
        for text, doc in zip(predictions, docs, strict=True)
    ]
    ensemble.apply(instances, docs)
    by_metric: dict[str, list[Any]] = {}
    each = []
    for doc, instance in zip(docs, instances, strict=True):
        found = task.process_results(copy.deepcopy(doc), [instance.filtered_resps[ensemble.name]])
        found = {key: value for key, value in found.items() if key != "submission"}
        for key, value in found.items():
            by_metric.setdefault(key, []).append(value)
        value = next(iter(found.values()))
        each.append(float(value["score"] if isinstance(value, dict) else value))
    totals = {}
    for key, values in by_metric.items():
        aggregate = task.aggregation()[key]
        sums = getattr(aggregate, "__globals__", {}).get("OCRBench_score", {})
        sums.update(dict.fromkeys(sums, 0))  # OCRBench is summed up in a global, for one evaluation a process
        try:
            totals[key] = float(aggregate(values))
        except TypeError:
            totals[key] = float(aggregate(values, SimpleNamespace(output_path=str(temporary))))
    return {"predictions": predictions, "scores": each, "aggregates": totals}


def record(name: str, temporary: Path) -> None:
    draw = random.Random(name)
    rows = list(rows_of(name, draw))
    task, where = open_task(name, rows, temporary)
    docs = list(task.eval_docs)
    rounds = [score(task, docs, predictions_of(name, rows, draw), temporary) for _ in range(ROUNDS)]
    found = {
        "lmms-eval": importlib.metadata.version("lmms_eval"),
        **where,
        "max_new_tokens": task.config.generation_kwargs.get("max_new_tokens"),
        "rows": rows,
        "prompts": [task.doc_to_text(doc) for doc in docs],
        "rounds": rounds,
    }
    DATA.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, ensure_ascii=False, indent=1)
    (DATA / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    shares = [sum(map(bool, one["scores"])) / len(rows) for one in rounds]
    print(
        f"{name}: {len(rows)} rows, {ROUNDS} rounds, {sum(shares) / len(shares):.0%} not 0, {len(text)} bytes"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for name in TASKS:
            record(name, Path(temporary))


if __name__ == "__main__":
    main()
