"""Evaluate a model on samples: plan the questions, divide them among processes, answer, join and summarize them.

`stages/evaluate.py` calls this module, and `generator.py` runs the model. An unusable question of a benchmark
or of a file of the user's (a broken image, an incomplete row) does not end the evaluation. It is skipped and listed in
`skipped.jsonl`, as in training; too many of them stop the evaluation. Samples of a data folder are never skipped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fcot_vl.common.files import write_rows
from fcot_vl.common.progress import progress_bar
from fcot_vl.data.dataset import Sample
from fcot_vl.data.skip_log import skipped_row, write_skipped
from fcot_vl.data.sources.base import origin_of
from fcot_vl.evaluate.aggregation import summarize, summarize_benchmark
from fcot_vl.evaluate.generator import Generator, Question, batches
from fcot_vl.evaluate.predictions import PREDICTIONS, PredictionFiles
from fcot_vl.evaluate.processes import ProcessGroup
from fcot_vl.evaluate.tasks.dataset import BenchmarkSamples
from fcot_vl.evaluate.tasks.minidoc import task_of
from fcot_vl.evaluate.tasks.own import OwnSamples
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.method import Method


class Evaluator:
    """Evaluation of one model with one method on one set of samples.

    Args:
        model, processor: Model and processor that are ready to answer.
        method: Method that drops visual tokens.
        samples: Samples to evaluate on. Unusable samples of a benchmark are skipped.
        max_skipped: Maximum share of skipped samples. Above it there is no result.

    Attributes:
        questions: Questions to answer, in the order of the samples.
        skipped: Skipped samples, as rows of `skipped.jsonl`.

    Raises:
        ValueError: If there are no samples, a sample cannot be scored, two share an id, or too many are skipped.
    """

    def __init__(
        self, model: Any, processor: Any, method: Method, samples: Sequence[Sample], max_skipped: float
    ) -> None:
        self.samples, self.max_skipped = samples, max_skipped
        self.skips = isinstance(samples, BenchmarkSamples | OwnSamples)
        self.benchmark = samples.benchmark if isinstance(samples, BenchmarkSamples) else None
        self.generator = Generator(
            model, processor, method, self.benchmark.task if self.benchmark else task_of
        )
        self.skipped: list[dict[str, Any]] = []
        self.questions: list[Question] = []
        for index in range(len(samples)):
            sample = self._read(index)
            if isinstance(sample, Sample):
                self.questions.append(self.generator.plan(index, sample))
            else:
                self.skipped.append(sample)
        if len({question.id for question in self.questions}) < len(self.questions):
            raise ValueError(
                "two samples share an id, so their predictions could not be distinguished; give each sample its own id"
            )
        if not len(samples):
            raise ValueError("there are no samples to evaluate on")
        self._refuse_many()

    def _read(self, index: int, pixels: bool = False) -> Sample | dict[str, Any]:
        """Return sample `index`, or a row with the reason why it is skipped."""
        if not self.skips:
            sample = self.samples[index]
            if not sample.answers or not sample.metric:
                raise ValueError(
                    f"sample {sample.id}: no accepted answers or no metric, so it cannot be scored; evaluate on a "
                    "'test' or 'validation' split, or give questions of your own as a JSON file"
                )
            return sample
        try:
            sample = self.samples[index]
            for image in sample.images if pixels else ():
                image.load()
        except Exception as error:  # damaged bytes make decoders raise nearly any error
            return skipped_row(origin_of(self.samples, index), error)
        return sample

    def run(self, files: PredictionFiles, batch_size: int, processes: ProcessGroup) -> None:
        """Answer the questions that have no answer yet; process `rank` takes every `world_size`-th batch."""
        done = files.answered()
        waiting = [question for question in self.questions if question.id not in done]
        own_batches = list(batches(waiting, batch_size))[processes.rank :: processes.world_size]
        handle = self.generator.method.apply(self.generator.model)
        try:
            with progress_bar(processes.is_main) as progress:
                total = (
                    len(self.questions)
                    if processes.world_size == 1
                    else len(done) + sum(map(len, own_batches))
                )
                bar = progress.add_task("questions", total=total, completed=len(done))
                for batch in own_batches:
                    started = time.perf_counter()
                    rows = self._answer(batch, handle)
                    files.add(rows, time.perf_counter() - started)
                    progress.update(bar, advance=len(rows), description=batch[0].task)
        finally:
            if handle is not None:
                handle.remove()

    def _answer(self, batch: Sequence[Question], handle: PruneHandle | None) -> list[dict[str, Any]]:
        """Return one row per question, with the key `skipped` if its pixels are broken."""
        read = [self._read(question.index, pixels=True) for question in batch]
        readable = [(q, sample) for q, sample in zip(batch, read, strict=True) if isinstance(sample, Sample)]
        skipped = [{"id": row["id"], "skipped": row} for row in read if isinstance(row, dict)]
        if not readable:
            return skipped

        def answer(piece: Sequence[tuple[Question, Sample]]) -> list[dict[str, Any]]:
            return self.generator.answer([q for q, _ in piece], [sample for _, sample in piece], handle)

        return [*self.generator.split_until_it_fits(readable, answer), *skipped]

    def finish(self, files: PredictionFiles) -> list[dict[str, Any]]:
        """Return the rows of all processes in the order of the samples, and write the skipped ones to their own file.

        Raises:
            ValueError: If too many questions were skipped. The answers are kept.
        """
        files.join()
        done = files.answered()
        rows = [done[question.id] for question in self.questions]
        self.skipped += [row["skipped"] for row in rows if "skipped" in row]
        self.skipped.sort(key=lambda row: row["index"])
        if self.skipped:
            write_skipped(files.folder, self.skipped)
        self._refuse_many()
        self.questions = [question for question in self.questions if "skipped" not in done[question.id]]
        rows = [row for row in rows if "skipped" not in row]
        write_rows(files.folder / PREDICTIONS, rows)
        return rows

    def _refuse_many(self) -> None:
        if len(self.skipped) > self.max_skipped * len(self.samples):
            raise ValueError(
                f"at least {len(self.skipped):,} of {len(self.samples):,} questions cannot be used, more than "
                f"max_skipped {self.max_skipped:g} allows, such as {self.skipped[-1]['id']}: "
                f"{self.skipped[-1]['reason']}. Fix the data or raise max_skipped"
            )
        if len(self.skipped) == len(self.samples):
            raise ValueError("no question is left to score: all were skipped (see skipped.jsonl)")

    def summary(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the part of the result that is computed from the rows."""
        if self.benchmark is None:
            return summarize(rows) | ({"skipped": len(self.skipped)} if self.skips else {})
        assert isinstance(self.samples, BenchmarkSamples)
        return {
            "benchmark": self.benchmark.name,
            "n": len(rows),
            "skipped": len(self.skipped),
            "hidden": self.samples.hidden,
            **summarize_benchmark(self.benchmark, rows),
        }
