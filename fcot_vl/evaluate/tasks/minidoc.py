"""Settings of each task of the package's own data: its metric, its token limit and the extraction of the answer.

`generator.py` looks up the settings of a question here; public benchmarks are in `public.py`. The settings do not
depend on the accepted answers of a question, so these cannot leak into a prediction.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fcot_vl.evaluate.metrics.document import METRICS
from fcot_vl.evaluate.metrics.lmms import LMMS_METRICS

ANSWER_MARKER = "Answer:"
SCORES = METRICS | LMMS_METRICS


@dataclass(frozen=True)
class Task:
    """Settings of one task.

    Attributes:
        metric: Key of `SCORES`.
        max_new_tokens: Maximum number of tokens that `generate()` produces.
        worked: Whether reasoning may come first, so that the answer follows the last "Answer:".
    """

    metric: str
    max_new_tokens: int = 64
    worked: bool = False


MINIDOC: dict[str, Task] = {
    "transcribe": Task("cer", 600),
    "forms": Task("anls"),
    "table_markdown": Task("cer", 400),
    "table_qa": Task("relaxed", worked=True),
    "chart_qa": Task("relaxed", worked=True),
    "dense_pages": Task("anls"),
    "multiple_choice": Task("exact", worked=True),
    "sums": Task("relaxed", 96, worked=True),
}
DENSITY_EDGES = (0, 0.25, 0.5, 1, 2, 4, 8)  # printed characters per visual token of the uncompressed teacher
MIN_PAGES = 60  # of a band that is reported on its own


def task_of(name: str, metric: str) -> Task:
    """Return the settings of a task; a task outside MiniDoc gets `metric` and the defaults.

    Raises:
        ValueError: If the metric is unknown or differs from that of the task.
    """
    if metric not in SCORES:
        raise ValueError(f"unknown metric {metric!r} of task {name!r}: choose one of {', '.join(SCORES)}.")
    task = MINIDOC.get(name, Task(metric))
    if task.metric != metric:
        raise ValueError(
            f"task {name!r} is scored by {task.metric!r}, but its samples name {metric!r}; regenerate them"
        )
    return task


def final_answer(prediction: str, task: Task) -> str:
    """Return the part of a prediction that is scored: after the last "Answer:" if reasoning may come first."""
    if task.worked and ANSWER_MARKER in prediction:
        prediction = prediction.rpartition(ANSWER_MARKER)[2]
    return prediction.strip()


def score(prediction: str, answers: Sequence[str], task: Task) -> float:
    """Return the score of one prediction in [0, 1]."""
    return SCORES[task.metric](final_answer(prediction, task), answers)


def density_bands(densities: Iterable[float], least: int = MIN_PAGES) -> list[str]:
    """Return the bands of text density, such as "0.25-0.5", in ascending order, with at least `least` pages each.

    Bands begin and end at `DENSITY_EDGES`. A band with fewer pages is joined with the next denser one, and the densest
    with the one before. Fewer pages in all give one band.
    """
    pages = sorted(densities)
    if not pages:
        return []
    edges = [0.0]
    for edge in DENSITY_EDGES[1:-1]:
        below = bisect_left(pages, edge)
        in_band = below - bisect_left(pages, edges[-1])
        if in_band >= least and len(pages) - below >= least:
            edges.append(edge)
    last = next((edge for edge in DENSITY_EDGES[1:] if pages[-1] < edge), DENSITY_EDGES[-1])
    return [f"{low:g}-{high:g}" for low, high in pairwise([*edges, last])]


def density_band(density: float, bands: Sequence[str]) -> str:
    """Return the band of a page, of `bands` in ascending order; values above the last one belong to it."""
    return next(band for band in reversed(bands) if density >= float(band.split("-")[0]))
