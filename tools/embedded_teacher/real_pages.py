"""Write real scans and PDFs as records, to see what a model reads of print that nobody here made.

    python tools/embedded_teacher/real_pages.py OUTPUT --receipts FOLDER --pdfs FOLDER
    fcot-vl evaluate --model MODEL --data OUTPUT/receipt-lines --output runs/real/receipt-lines

The receipts folder holds ``NAME.jpg``, ``NAME.csv`` (eight corner coordinates and the text of every line) and
``NAME.json``
(``total``, ``date``, ...). The PDF folder is searched for ``*.pdf``. Three folders of records are written:
``receipt-lines`` (every annotated line, cut out), ``receipt-questions`` (total and date of the whole receipt) and
``pdf-blocks`` (blocks of ten lines). Records like these are for looking only, never for training.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pdf_pages import find_pdfs, page_count, read_blocks
from PIL import Image

from fcot_vl.data.dataset import Sample, write_shard
from fcot_vl.synthesize.documents.tasks import box_around, stacked

DPI = 150
LINES = 10


def _sample(
    name: str, image: Image.Image, question: str, answers: list[str], metric: str, task: str
) -> Sample:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answers[0]}]
    return Sample(name, [image.convert("RGB")], messages, task, "real", answers, metric)


def receipt_lines(folder: Path) -> Iterator[Sample]:
    """Every annotated line of every receipt, cut out with two pixels around it."""
    for path in sorted(folder.glob("*.csv")):
        image = Image.open(path.with_suffix(".jpg"))
        rows = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, row in enumerate(rows):
            fields = row.split(",", 8)
            if len(fields) < 9 or not fields[8].strip():
                continue
            corners = np.array([int(field) for field in fields[:8]]).reshape(4, 2)
            left, top = np.maximum(0, corners.min(0) - 2).tolist()
            right, bottom = np.minimum(image.size, corners.max(0) + 2).tolist()
            if right - left < 4 or bottom - top < 4:
                continue
            piece = image.crop((left, top, right, bottom))
            text = fields[8].strip()
            yield _sample(f"{path.stem}-{number:03d}", piece, "Read the text.", [text], "cer", "lines")


def receipt_questions(folder: Path) -> Iterator[Sample]:
    """Total and date of every receipt; an amount counts with and without its currency."""
    for path in sorted(folder.glob("*.json")):
        image = Image.open(path.with_suffix(".jpg"))
        image.load()
        truth = json.loads(path.read_text(encoding="utf-8"))
        for field in ("total", "date"):
            text = str(truth.get(field) or "").strip()
            if not text:
                continue
            answers = [text]
            if field == "total":
                amount = re.sub(r"[^\d.,-]", "", text)
                answers += [f"{sign}{amount}" for sign in ("", "$", "RM", "RM ", "$ ")]
            question = f"What is the {field}?"
            yield _sample(f"{path.stem}-{field}", image, question, answers, "exact", f"receipt {field}")


def pdf_blocks(folder: Path, count: int, seed: int) -> Iterator[Sample]:
    """`count` blocks of ten lines of text, each from another page."""
    rng = random.Random(f"real/{seed}")
    paths = find_pdfs(folder)
    weights = [min(page_count(path), 60) for path in paths]
    made = 0
    while made < count:
        path = rng.choices(paths, weights)[0]
        image, blocks, points = read_blocks(path, rng.randrange(page_count(path)), DPI)
        long = [block for block in blocks if len(block) >= LINES]
        if not long:
            continue
        block = rng.choice(long)
        first = rng.randrange(len(block) - LINES + 1)
        lines = block[first : first + LINES]
        text = stacked(lines).text
        piece = image.crop(box_around(lines, points, image.size, 1.0, 1.0))
        yield _sample(f"{path.name}-{made:03d}", piece, "Read the text.", [text], "cer", "blocks")
        made += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for the three folders of records")
    parser.add_argument("--receipts", type=Path, help="folder of scanned receipts")
    parser.add_argument("--pdfs", type=Path, help="folder of PDFs that were not trained on")
    parser.add_argument("--blocks", type=int, default=60, help="number of PDF blocks (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of blocks (default: 0)")
    args = parser.parse_args()
    written: dict[str, Iterator[Sample]] = {}
    if args.receipts:
        written["receipt-lines"] = receipt_lines(args.receipts)
        written["receipt-questions"] = receipt_questions(args.receipts)
    if args.pdfs:
        written["pdf-blocks"] = pdf_blocks(args.pdfs, args.blocks, args.seed)
    if not written:
        parser.error("name --receipts, --pdfs, or both")
    for name, samples in written.items():
        folder = args.output / name
        folder.mkdir(parents=True, exist_ok=True)
        write_shard(folder / "real-00000.parquet", samples)
        print(folder)


if __name__ == "__main__":
    main()
