"""Figure of one example: the page, the question, the reference, and the answers with their mistakes in red."""

from __future__ import annotations

import difflib
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from fcot_vl.common.plotting import DPI, FAINT, INK
from fcot_vl.report.examples import Example
from fcot_vl.report.figures.style import style
from fcot_vl.report.run_data import RunData

RIGHT, WRONG = INK, "#d1242f"


def example_figure(run: RunData, example: Example, path: Path) -> Path:
    """Draw one test page: the page, the question, the reference, and the answers of all models with mistakes in red."""
    columns, rows = 62, 15
    blocks: list[tuple[str, str, float | None, str]] = [("reference", example.reference, None, INK)]
    blocks += [
        (a.model.variant.label, a.prediction, a.score, str(style(a.model)["color"])) for a in example.answers
    ]
    heights = [0.34 + 0.155 * len(_wrap(text, columns, rows)) for _, text, _, _ in blocks]
    question_lines = textwrap.wrap(example.question, 70) or [""]
    tall = max(3.6, sum(heights) + 0.2 * len(question_lines) + 1.0)
    figure = Figure(figsize=(11, tall))
    left = figure.add_axes((0.012, 0.45 / tall, 0.40, 1 - 0.98 / tall))
    left.set_axis_off()
    if example.page is not None:
        left.imshow(np.asarray(example.page), interpolation="antialiased", aspect="equal")
        left.set_anchor("NW")
        left.add_patch(_frame(example.page))
    y = tall - 0.62
    x = 0.435
    for line in question_lines:
        figure.text(x, y / tall, line, fontsize=9.5, color=INK, style="italic", va="top")
        y -= 0.2
    y -= 0.1
    for (label, text, score, color), height in zip(blocks, heights, strict=True):
        shown = label if score is None else f"{label}   {100 * score:.0f}"
        figure.text(x, y / tall, shown, fontsize=8, weight="bold", color=color, va="top")
        lines = _wrap(text, columns, rows)
        marks = _mistakes(text, example.reference) if score is not None else [False] * len(text)
        right, wrong = _layers(lines, text, marks)
        for number, pair in enumerate(zip(right, wrong, strict=True), 1):
            at = (y - 0.15 - 0.155 * number) / tall
            for line, ink in zip(pair, (RIGHT, WRONG), strict=True):
                figure.text(x, at, line, fontsize=7.6, family="DejaVu Sans Mono", color=ink, parse_math=False)
        y -= height
    facts = run.provenance()
    ratios = ", ".join(map(str, sorted({a.model.variant.compress_ratio for a in example.answers})))
    text = (
        f"Number: the score, 0 to 100. Red: differs from the reference. Teacher {facts['model']}; compress ratio "
        f"{ratios}; data {facts['data']}; commit {facts['commit']}; {facts['hardware']}; {facts['date']}."
    )
    figure.text(0.012, 0.08 / tall, "\n".join(textwrap.wrap(text, 189)), fontsize=7, color=FAINT, va="bottom")
    task = example.task.replace("_", " ")
    figure.text(0.012, 1 - 0.27 / tall, task, fontsize=12.5, weight="bold", color=INK, va="center")
    figure.savefig(path, dpi=DPI, facecolor="white")
    return path


def _frame(page: Image.Image) -> Rectangle:
    return Rectangle((-0.5, -0.5), page.width, page.height, fill=False, edgecolor="#b8c0c8", linewidth=1)


def _wrap(text: str, columns: int, rows: int) -> list[str]:
    """Cut `text` into at most `rows` lines of at most `columns` characters.

    If it is longer, the last line gives the number of omitted lines. No character is dropped before that line.
    """
    lines = [
        line[at : at + columns] for line in text.split("\n") for at in range(0, max(len(line), 1), columns)
    ]
    return (
        lines if len(lines) <= rows else [*lines[: rows - 1], f"... and {len(lines) - rows + 1} more lines"]
    )


def _mistakes(text: str, reference: str) -> list[bool]:
    """Mark every character of `text` with True if it is not matched by the reference."""
    marks = [True] * len(text)
    for block in difflib.SequenceMatcher(None, text, reference, autojunk=False).get_matching_blocks():
        marks[block.a : block.a + block.size] = [False] * block.size
    return marks


def _layers(lines: list[str], text: str, marks: list[bool]) -> tuple[list[str], list[str]]:
    """Return the lines twice, first with only the right and then with only the wrong characters, blanks elsewhere."""
    right, wrong = [], []
    at = 0
    for line in lines:
        while at < len(text) and text[at] == "\n":
            at += 1
        if text[at : at + len(line)] != line:  # the line with the number of omitted lines
            right.append(line)
            wrong.append("")
            continue
        flags = marks[at : at + len(line)]
        right.append("".join(" " if bad else c for c, bad in zip(line, flags, strict=True)))
        wrong.append("".join(c if bad else " " for c, bad in zip(line, flags, strict=True)))
        at += len(line)
    return right, wrong
