"""Definitions of the paper's benchmarks: dataset, prompt and scoring of each, as in lmms-eval 0.7.3.

`dataset.py` uses them to make samples of a benchmark's rows, and `generator.py` to score the answers. Prompts are
those that lmms-eval gives an unknown model (its `default`), and token limits are those of lmms-eval. The scores for the
same predictions are equal to those of lmms-eval too (`tests/unit/evaluate/test_public.py`). Only benchmarks with a
rule-based metric are here; `NOT_SCORED_HERE` lists the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fcot_vl.data.chat_format import SampleError, read_answer
from fcot_vl.evaluate.metrics.document import normalize_vqa
from fcot_vl.evaluate.tasks.minidoc import Task

Row = Mapping[str, Any]

SHORT = "\nAnswer the question using a single word or phrase."
ONE_WORD = "\nAnswer the question with a single word."
LETTER = "\nAnswer with the option's letter from the given choices directly."
YES_OR_NO = " Please answer yes or no."
FORMULAS = "HME100k"  # the source in OCRBench of handwritten formulas


@dataclass(frozen=True)
class Benchmark:
    """Definition of one benchmark.

    Attributes:
        name: Name for `--benchmark`.
        hub, config: Dataset on the hub and its configuration.
        split: Split that is scored by default.
        columns: Columns that a row must have besides its image.
        optional: Those of them that may be empty.
        question: Function that returns the prompt of a row.
        answers: Function that returns the accepted answers of a row.
        metric: Key of `SCORES` in `minidoc.py`, or a function of the row if a benchmark has several metrics.
        reported: Name of the headline score in lmms-eval.
        max_new_tokens: Maximum number of tokens of an answer.
        group: Function that returns the part of the benchmark a row belongs to.
        own_id: Column with the question ids of the benchmark.
        hidden: Splits whose answers are not public.
        submitted: Function that formats a prediction for the benchmark's server.
    """

    name: str
    hub: str
    config: str | None
    split: str
    columns: tuple[str, ...]
    question: Callable[[Row], str]
    answers: Callable[[Row], list[str]]
    metric: str | Callable[[Row], str]
    reported: str
    max_new_tokens: int
    group: Callable[[Row], str] | None = None
    own_id: str | None = None
    hidden: tuple[str, ...] = ()
    submitted: Callable[[str], str] = str.strip
    optional: tuple[str, ...] = ()

    def metric_of(self, row: Row) -> str:
        """Return the metric of a row."""
        return self.metric if isinstance(self.metric, str) else self.metric(row)

    def group_of(self, row: Row) -> str:
        """Return the part of the benchmark that a row belongs to, or the benchmark's name if it has no parts."""
        return self.name if self.group is None else self.group(row)

    def task(self, group: str, metric: str) -> Task:
        """Return the settings of the questions of a group, which are the same for all groups."""
        return Task(metric, self.max_new_tokens)

    def submission(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Convert rows of `predictions.jsonl` to the format of the benchmark's server: question id and answer."""
        assert self.own_id is not None
        made = []
        for row in rows:
            own = row["id"].partition(":")[2]
            answer = self.submitted(row["prediction"])
            made.append({self.own_id: int(own) if own.isdecimal() else own, "answer": answer})
        return made


def _texts(value: Any, column: str) -> list[str]:
    """Return one text, or a list of texts, as a list.

    Raises:
        SampleError: If there is no text.
    """
    found = value if isinstance(value, list | tuple) else [value]
    try:
        # Of several accepted answers, some may be empty, as in TextVQA.
        several = any(isinstance(one, str) and one.strip() for one in found)
        return [one if one == "" and several else read_answer(one) for one in found] or [read_answer(None)]
    except SampleError as error:
        raise SampleError("without an answer", f"column {column!r} has {value!r:.60}: {error}") from None


def _answers(row: Row) -> list[str]:
    return _texts(row["answers"], "answers")


def _ten_answers(row: Row) -> list[str]:
    found = _answers(row)
    if len(found) != 10:
        raise SampleError("without an answer", f"{len(found)} answers in column 'answers', not ten")
    return found


def _answer(row: Row) -> list[str]:
    return _texts(row["answer"], "answer")


def _right_letter(row: Row, choices: str) -> list[str]:
    """Return the letter of the right choice. The row's answer is the number of the choice, from 0."""
    try:
        right = int(row["answer"])
    except (TypeError, ValueError):
        right = -1
    if not 0 <= right < len(row[choices]):
        raise SampleError(
            "without an answer",
            f"answer {row['answer']!r} is not the number of one of the {len(row[choices])} choices",
        )
    return [chr(ord("A") + right)]


def _lettered(choices: Sequence[str]) -> str:
    return "\n".join(f"{chr(ord('A') + i)}. {choice}" for i, choice in enumerate(choices))


def _scienceqa(row: Row) -> str:
    context = f"Context: {row['hint']}\n" if row["hint"] else ""
    return f"{context}{row['question']}\n{_lettered(row['choices'])}{LETTER}"


_DOCUMENTS = ("questionId", "question", "answers")  # columns of DocVQA and InfoVQA

DOCVQA = Benchmark(
    name="docvqa",
    hub="lmms-lab-encoder/DocVQA",
    config="DocVQA",
    split="validation",
    columns=_DOCUMENTS,
    question=lambda row: f"{row['question']}{SHORT}",
    answers=_answers,
    metric="lmms_anls",
    reported="anls",
    max_new_tokens=32,
    own_id="questionId",
    hidden=("test",),
)
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        DOCVQA,
        replace(DOCVQA, name="infovqa", config="InfographicVQA"),
        Benchmark(
            name="chartqa",
            hub="lmms-lab-encoder/ChartQA",
            config=None,
            split="test",
            columns=("question", "answer", "type"),
            question=lambda row: f"{row['question']}{ONE_WORD}",
            answers=_answer,
            metric="relaxed",
            reported="relaxed_overall",
            max_new_tokens=16,
            group=lambda row: "human" if row["type"] == "human_test" else "augmented",
        ),
        Benchmark(
            name="textvqa",
            hub="lmms-lab-encoder/textvqa",
            config=None,
            split="validation",
            columns=("question_id", "question", "answers"),
            question=lambda row: f"{row['question'].capitalize()}{SHORT}",
            answers=_ten_answers,
            metric="textvqa",
            reported="exact_match",
            max_new_tokens=1024,  # lmms-eval sets no limit; its InternVL then uses 1024
            own_id="question_id",
            hidden=("test",),
            submitted=normalize_vqa,
        ),
        Benchmark(
            name="ocrbench",
            hub="echo840/OCRBench",
            config=None,
            split="test",
            columns=("dataset", "question", "question_type", "answer"),
            question=lambda row: str(row["question"]).strip(),
            answers=_answer,
            metric=lambda row: "contains_formula" if row["dataset"] == FORMULAS else "contains",
            reported="ocrbench_accuracy",
            max_new_tokens=128,
            group=lambda row: str(row["question_type"]),
        ),
        Benchmark(
            name="ai2d",
            hub="lmms-lab-encoder/ai2d",
            config=None,
            split="test",
            columns=("question", "options", "answer"),
            question=lambda row: f"{row['question']}\n{_lettered(row['options'])}{LETTER}",
            answers=lambda row: _right_letter(row, "options"),
            metric="option",
            reported="exact_match",
            max_new_tokens=16,
        ),
        Benchmark(
            name="scienceqa",
            hub="lmms-lab-encoder/ScienceQA",
            config="ScienceQA-IMG",
            split="test",
            columns=("question", "choices", "answer", "hint"),
            optional=("hint",),
            question=_scienceqa,
            answers=lambda row: _right_letter(row, "choices"),
            metric="option_or_letter",
            reported="exact_match",
            max_new_tokens=16,
        ),
        Benchmark(
            name="mme",
            hub="lmms-lab-encoder/MME",
            config=None,
            split="test",
            columns=("question_id", "question", "answer", "category"),
            question=lambda row: f"{row['question'].strip().replace(YES_OR_NO, '')}{SHORT}",
            answers=_answer,
            metric="yes_or_no",
            reported="mme_perception_score + mme_cognition_score",
            max_new_tokens=16,
            group=lambda row: str(row["category"]),
            own_id="question_id",
        ),
    )
}

NOT_SCORED_HERE = {  # name: (tasks of lmms-eval, reason why they are not here)
    "mathvista": (
        "mathvista_testmini_format",
        "a language model reads the final answer off each response",
    ),
    "ocrbench_v2": (
        "ocrbench_v2",
        "half of its thirty types are scored by tree edit distance, METEOR and spotting protocols of their own",
    ),
}


def benchmark_of(name: str) -> Benchmark:
    """Return a benchmark by name.

    Raises:
        ValueError: If the benchmark is unknown or is not scored here.
    """
    if name in NOT_SCORED_HERE:
        tasks, reason = NOT_SCORED_HERE[name]
        raise ValueError(
            f"benchmark {name!r} is not scored here ({reason}): run lmms-eval with --tasks {tasks}."
        )
    if name not in BENCHMARKS:
        known = ", ".join([*BENCHMARKS, *NOT_SCORED_HERE])
        raise ValueError(f"unknown benchmark {name!r}; choose from {known}")
    return BENCHMARKS[name]
