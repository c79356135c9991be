"""Examples of the report: the first test page of each of four tasks, with the answers of the main models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from fcot_vl.data.dataset import SampleFolder
from fcot_vl.report.run_data import ModelResults, RunData

EXAMPLES = 4
EXAMPLE_TASKS = ("transcribe", "forms", "chart_qa", "dense_pages")


@dataclass
class Answer:
    """One model's answer about an example."""

    model: ModelResults
    prediction: str
    score: float


@dataclass
class Example:
    """One test page with the answers of the main models."""

    id: str
    task: str
    page: Image.Image | None  # None if the pages are not available
    question: str
    reference: str
    answers: list[Answer]


def find_examples(run: RunData, data: Path) -> list[Example]:
    """Return the first test page of each of four tasks, chosen by position and not by outcome.

    Args:
        data: Folder of the test pages; the examples have no page if there is no such folder.
    """
    rows = _example_rows(run)
    pages = _pages(data, {row["id"] for row in rows})
    # The answers of the teacher, the students, and FastV at the same nominal tokens.
    models = [run.teacher, *run.find("post-train"), *run.find("teacher", "fastv")]
    examples = []
    for row in rows:
        found = [(m, m.predictions[0][row["id"]]) for m in models if row["id"] in m.predictions[0]]
        answers = [
            Answer(model, str(answer["prediction"]), float(answer["score"])) for model, answer in found
        ]
        examples.append(
            Example(row["id"], row["task"], pages.get(row["id"]), row["question"], row["answers"][0], answers)
        )
    return examples


def _example_rows(run: RunData) -> list[dict[str, Any]]:
    """Return the teacher's first row of predictions of each of four tasks, those of EXAMPLE_TASKS first."""
    predictions = (run.teacher.predictions or [{}])[0].values()
    rows: list[dict[str, Any]] = []
    for task in [*EXAMPLE_TASKS, *(t for t in run.tasks if t not in EXAMPLE_TASKS)]:
        rows += [row for row in predictions if row["task"] == task][:1]
    return rows[:EXAMPLES]


def _pages(data: Path, ids: set[str]) -> dict[str, Image.Image]:
    """Read the first images of these samples; stops as soon as all are found."""
    pages: dict[str, Image.Image] = {}
    try:
        samples = SampleFolder(data)
    except FileNotFoundError:
        return pages
    for index in range(len(samples)):
        if len(pages) == len(ids):
            break
        sample = samples[index]
        if sample.id in ids:
            pages[sample.id] = sample.images[0]
    return pages
