"""What each task of records fixes for everybody: its metric, its token limit, how an answer is read off.

Between the records and the runner; other people's benchmarks are in `published.py`. Nothing here depends on a
question's accepted answers, so nothing can leak from them into a prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fcot_vl.evaluate.lmms_metrics import LMMS_METRICS
from fcot_vl.evaluate.metrics import METRICS

ANSWER_MARKER = "Answer:"
SCORES = METRICS | LMMS_METRICS


@dataclass(frozen=True)
class Task:
    """Settings of one task.

    metric: key of `SCORES`. max_new_tokens: limit of `generate()`. text_dense: whether the score hangs on reading
    many characters right (the tasks that compression must hurt first). worked: the answer may be reasoned out
    first and follows the last "Answer:".
    """

    metric: str
    max_new_tokens: int = 64
    text_dense: bool = False
    worked: bool = False


MINIDOC: dict[str, Task] = {
    "transcribe": Task("cer", 600, text_dense=True),
    "forms": Task("anls", text_dense=True),
    "table_markdown": Task("cer", 400, text_dense=True),
    "table_qa": Task("relaxed", worked=True),
    "chart_qa": Task("relaxed", worked=True),
    "dense_pages": Task("anls", text_dense=True),
    "multiple_choice": Task("exact", worked=True),
    "sums": Task("relaxed", 96, worked=True),
}
TEXT_DENSE = tuple(name for name, task in MINIDOC.items() if task.text_dense)

DENSITY_BUCKETS = (
    "0-2",
    "2-4",
    "4-6",
    "6-8",
)  # printed characters per visual token of the uncompressed teacher


def task_of(name: str, metric: str) -> Task:
    """The settings of a task; one that is not MiniDoc's gets `metric` and the defaults.

    Raises ValueError for an unknown metric, or one that contradicts the task's.
    """
    if metric not in SCORES:
        raise ValueError(f"unknown metric {metric!r} of task {name!r}: choose one of {', '.join(SCORES)}.")
    task = MINIDOC.get(name, Task(metric))
    if task.metric != metric:
        raise ValueError(f"task {name!r} is scored by {task.metric!r}, its records say {metric!r}.")
    return task


def final_answer(prediction: str, task: Task) -> str:
    """The part of a prediction that is scored: after the last "Answer:" where reasoning may come first."""
    if task.worked and ANSWER_MARKER in prediction:
        prediction = prediction.rpartition(ANSWER_MARKER)[2]
    return prediction.strip()


def score(prediction: str, answers: Sequence[str], task: Task) -> float:
    """The score of one prediction in [0, 1]."""
    return SCORES[task.metric](final_answer(prediction, task), answers)


def density_bucket(density: float) -> str:
    """The bucket of a page's text density; below 1 joins the first, above 8 the last."""
    for bucket in DENSITY_BUCKETS:
        if density < float(bucket.split("-")[1]):
            return bucket
    return DENSITY_BUCKETS[-1]
