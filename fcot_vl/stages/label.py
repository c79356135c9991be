"""Stage `label`: a teacher's answers about images, written as Parquet shards of samples.

The stage reads any data (`open_data`) or a folder of images, and training reads its output. `shards.py` describes the
pass over the data and how an interrupted run is resumed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcot_vl.common.stage import open_stage
from fcot_vl.data.dataset import Origin, Sample
from fcot_vl.data.skip_log import kind_of, reason_of
from fcot_vl.data.sources.base import origin_of
from fcot_vl.data.sources.image_folder import ImageFolder
from fcot_vl.data.sources.open_data import open_data
from fcot_vl.instruct.backends.local import Asked, LocalTeacher, Reply
from fcot_vl.instruct.config import AskingConfig
from fcot_vl.instruct.shard_runner import Ask, Row, Shards, place
from fcot_vl.models.tiny import tiny_teacher_path

READ_ALL = "Read all text in this picture, line by line, exactly as it is printed."


@dataclass
class LabelConfig(AskingConfig):
    """Settings of `label`, in addition to those of `AskingConfig`.

    Attributes:
        output: Output folder.
        data, images: Data to label. Exactly one of them is given: data in any form that `open_data` opens, or a folder
            of images.
        teacher: Folder or Hub id of a model. Default: the embedded teacher, if no endpoint is given either.
        questions: Questions that replace those of the samples. The seed draws one for each sample. Without any
            question, `READ_ALL` is asked.
        keep_truth: Keep the existing answer of a sample as its label. The teacher's answer is written beside it.
        seed: Seed for drawing the questions and the samples of a mixture.

    Raises:
        ValueError: If settings contradict each other.
    """

    output: Path
    data: str | None = None
    images: Path | None = None
    teacher: str | None = None
    questions: Sequence[str] = ()
    keep_truth: bool = False

    def __post_init__(self) -> None:
        if (self.data is None) == (self.images is None):
            raise ValueError("give either --data or --images, what is to be labelled")
        if self.keep_truth and self.questions:
            raise ValueError("--keep-truth keeps answers to the records' own questions: leave --question out")
        if any(not question.strip() for question in self.questions):
            raise ValueError("--question is empty")
        self.check(self.teacher, "--teacher")


def label(config: LabelConfig) -> Path:
    """Answer the questions of every sample, and write the samples with the answers.

    The function writes to `config.output`: `label-*.parquet` (`SampleFolder`), a `label-*.jsonl` for each of them with
    one row per question (the question, the teacher's answer, the truth if the sample has one, the tokens, the finish
    reason), `skipped.jsonl` with one row per skipped sample, and `stage.json`. A finished run is recognised, and an
    interrupted run is resumed.

    Returns:
        The output folder.

    Raises:
        StageError: If the folder has a run with other settings.
        ValueError: If the data, the teacher or a setting cannot be used, or if too many samples are skipped.
    """
    samples = _open(config)
    teacher = config.answering(LocalTeacher, config.teacher or str(tiny_teacher_path()))
    settings = {
        "questions": list(config.questions),
        "keep_truth": config.keep_truth,
        "max_new_tokens": config.max_new_tokens,
    }
    inputs = {"data": samples.fingerprint(), **teacher.identity()}
    stage = open_stage(config.output, "label", settings, inputs, config.seed)
    if stage.done:
        print(f"label: {config.output} is finished, {stage.figures['labelled']:,} records", flush=True)
        return config.output
    shards = Shards("label", config.output, samples, teacher, config.max_skipped)
    print(f"label: {len(shards.indices):,} records by {inputs['teacher']} -> {config.output}", flush=True)
    work = _Work(config, samples)
    figures = shards.run(work)
    figures |= {"labelled": figures["records"] - figures["skipped"], "questions": work.questions}
    stage.finish(figures | config.cost(figures["prompt_tokens"], figures["completion_tokens"]))
    print(
        f"label: {figures['labelled']:,} records, {figures['skipped']:,} skipped -> {config.output}",
        flush=True,
    )
    return config.output


def _open(config: LabelConfig) -> Any:
    if config.images is None:
        return open_data(str(config.data), config.seed)
    if not config.images.is_dir():
        raise ValueError(f"{config.images}: no such folder of pictures")
    return ImageFolder(config.images)


@dataclass
class _Page:
    """Sample that is being labelled: its questions, and the conversation so far."""

    index: int
    origin: Origin
    questions: list[str] = field(default_factory=list)
    truths: list[str | None] = field(default_factory=list)  # one per question, None where the sample has none
    messages: list[dict[str, str]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    skipped: bool = False

    def skip(self, kind: str, reason: str) -> None:
        self.skipped = True
        self.rows.append({**place(self.origin), "kind": kind, "reason": reason})

    def take(self, turn: int, reply: Reply, keep_truth: bool) -> None:
        """Add a reply. The sample is skipped if there is none, or if it is unusable but needed as the label."""
        truth = self.truths[turn]
        if reply.kind:
            self.skip(reply.kind, reply.reason)
            return
        self.rows.append(
            {
                **place(self.origin),
                "turn": turn,
                "question": self.questions[turn],
                "answer": reply.text,
                "truth": truth,
                "tokens": reply.tokens,
                "prompt_tokens": reply.prompt_tokens,
                "finish_reason": reply.finish,
            }
        )
        if keep_truth and truth is not None:
            answer = truth
        elif reply.finish != "stop":
            self.skip("cut off", f"the answer ended by {reply.finish!r} after {reply.tokens} tokens")
            return
        elif not reply.text:
            self.skip("empty answer", "the teacher answered nothing")
            return
        else:
            answer = reply.text
        self.messages.append({"role": "assistant", "content": answer})


class _Work:
    """Work of `label`: shards of labels."""

    def __init__(self, config: LabelConfig, samples: Any) -> None:
        self.config, self.samples = config, samples
        self.questions = 0

    def answer(self, indices: Sequence[int], ask: Ask) -> tuple[list[Row], Iterator[Sample]]:
        pages = [self._page(index) for index in indices]
        for turn in range(max(len(page.questions) for page in pages)):
            asked = [page for page in pages if not page.skipped and turn < len(page.questions)]
            for page in asked:
                page.messages.append({"role": "user", "content": page.questions[turn]})
            replies = ask([self._asked(page, turn) for page in asked], 1.0 if turn == 0 else 0.0)
            for page, reply in zip(asked, replies, strict=True):
                page.take(turn, reply, self.config.keep_truth)
        rows = [row for page in pages for row in page.rows]
        return rows, (self._sample(page) for page in pages if not page.skipped)

    def count(self, row: Row) -> None:
        self.questions += 1

    def _asked(self, page: _Page, turn: int) -> Asked:
        return Asked(f"{page.index}/{turn}", list(page.messages), lambda: self.samples[page.index].images)

    def _page(self, index: int) -> _Page:
        page = _Page(index, origin_of(self.samples, index))
        try:
            sample: Sample = self.samples[index]
            own = [message for message in sample.messages if message["role"] == "user"]
            if self.config.questions or not own:
                page.questions, page.truths = [self._question(page.origin)], [None]
                return page
            if sample.messages[0]["role"] == "system":
                page.messages.append(sample.messages[0])
            page.questions = [message["content"] for message in own]
            truths: list[str | None] = [m["content"] for m in sample.messages if m["role"] == "assistant"]
            page.truths = truths + [None] * (len(own) - len(truths))
        except Exception as error:  # as in training: unusual files may raise nearly anything
            page.skip(kind_of(error), reason_of(error))
        return page

    def _question(self, origin: Origin) -> str:
        """Draw a question. It depends only on the sample and the seed, not on the position in the data."""
        drawn = random.Random(f"{self.config.seed}/{origin.source}/{origin.id}/{origin.index}")
        return drawn.choice(list(self.config.questions) or [READ_ALL])

    def _sample(self, page: _Page) -> Sample:
        sample: Sample = self.samples[page.index]
        if page.truths == [None] and self.config.questions:  # the accepted answers belong to another question
            return Sample(sample.id, sample.images, page.messages, "", sample.source)
        sample.messages = page.messages
        return sample
