"""Stage `label`: a teacher's answers about images, written as Parquet shards of samples.

The stage reads any data (`open_data`) or a folder of images, and training reads its output. `shard_runner.py` of
`instruct` describes the pass over the data and how an interrupted run is resumed.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcot_vl.common.stage import open_stage
from fcot_vl.common.text import check_text
from fcot_vl.data.chat_format import images_so_far
from fcot_vl.data.dataset import Origin, Sample
from fcot_vl.data.skip_log import kind_of, reason_of
from fcot_vl.data.sources.base import origin_of
from fcot_vl.data.sources.image_folder import ImageFolder
from fcot_vl.data.sources.open_data import open_data
from fcot_vl.instruct.backends.local import LocalVlm, Reply, Request
from fcot_vl.instruct.config import BackendConfig
from fcot_vl.instruct.shard_runner import Generate, Row, ShardRunner, origin_columns
from fcot_vl.models.tiny import tiny_teacher_path

logger = logging.getLogger(__name__)

READ_ALL = "Read all text in this picture, line by line, exactly as it is printed."


@dataclass
class LabelConfig(BackendConfig):
    """Settings of `label`, in addition to those of `BackendConfig`.

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
            raise ValueError("give either --data or --images, the data to label")
        if self.keep_truth and self.questions:
            raise ValueError(
                "--keep-truth keeps the answers to the samples' own questions; leave out --question"
            )
        if any(not question.strip() for question in self.questions):
            raise ValueError("--question is empty; give the text of a question")
        for question in self.questions:
            check_text(question, "--question")
        self.check(self.teacher, "--teacher")


def label(config: LabelConfig) -> Path:
    """Answer the questions of every sample, and write the samples with the answers.

    The function writes to `config.output`: `label-*.parquet` (`SampleFolder`), a `label-*.jsonl` for each of them with
    one row per question (the question, the teacher's answer, the truth if the sample has one, the tokens, the finish
    reason), `skipped.jsonl` with one row per skipped sample, and `stage.json`. A finished run is recognized, and an
    interrupted run is resumed.

    Returns:
        The output folder.

    Raises:
        StageError: If the folder has a run with other settings.
        ValueError: If the data, the teacher or a setting cannot be used, or if too many samples are skipped.
    """
    samples = _open(config)
    teacher = config.create_backend(LocalVlm, config.teacher or str(tiny_teacher_path()))
    settings = {
        "questions": list(config.questions),
        "keep_truth": config.keep_truth,
        "max_new_tokens": config.max_new_tokens,
    }
    inputs = {"data": samples.fingerprint(), **teacher.identity()}
    stage = open_stage(config.output, "label", settings, inputs, config.seed)
    if stage.done:
        logger.info(f"label: {config.output} is finished, {stage.figures['labelled']:,} samples")
        return config.output
    runner = ShardRunner("label", config.output, samples, teacher, config.max_skipped)
    logger.info(f"label: {len(runner.indices):,} samples by {inputs['teacher']} -> {config.output}")
    worker = _Worker(config, samples)
    figures = runner.run(worker)
    figures |= {"labelled": figures["records"] - figures["skipped"], "questions": worker.questions}
    stage.finish(figures | config.cost(figures["prompt_tokens"], figures["completion_tokens"]))
    logger.info(f"label: {figures['labelled']:,} samples, {figures['skipped']:,} skipped -> {config.output}")
    return config.output


def _open(config: LabelConfig) -> Any:
    if config.images is None:
        return open_data(str(config.data), config.seed)
    if not config.images.is_dir():
        raise ValueError(f"{config.images}: no such folder; --images needs a folder of images")
    return ImageFolder(config.images)


@dataclass
class _Conversation:
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
        self.rows.append({**origin_columns(self.origin), "kind": kind, "reason": reason})

    def add_reply(self, turn: int, reply: Reply, keep_truth: bool) -> None:
        """Add a reply. The sample is skipped if there is none, or if it is unusable but needed as the label."""
        truth = self.truths[turn]
        if reply.kind:
            self.skip(reply.kind, reply.reason)
            return
        self.rows.append(
            {
                **origin_columns(self.origin),
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


class _Worker:
    """Maker of the shards of `label`."""

    def __init__(self, config: LabelConfig, samples: Any) -> None:
        self.config, self.samples = config, samples
        self.questions = 0

    def process(self, indices: Sequence[int], generate: Generate) -> tuple[list[Row], Iterator[Sample]]:
        conversations = [self._conversation(index) for index in indices]
        for turn in range(max(len(conversation.questions) for conversation in conversations)):
            active = [
                conversation
                for conversation in conversations
                if not conversation.skipped and turn < len(conversation.questions)
            ]
            for conversation in active:
                conversation.messages.append({"role": "user", "content": conversation.questions[turn]})
            replies = generate(
                [self._request(conversation, turn) for conversation in active], 1.0 if turn == 0 else 0.0
            )
            for conversation, reply in zip(active, replies, strict=True):
                conversation.add_reply(turn, reply, self.config.keep_truth)
        rows = [row for conversation in conversations for row in conversation.rows]
        return rows, (
            self._sample(conversation) for conversation in conversations if not conversation.skipped
        )

    def count(self, row: Row) -> None:
        self.questions += 1

    def _request(self, conversation: _Conversation, turn: int) -> Request:
        whole = [{"role": "user", "content": question} for question in conversation.questions]
        shown = images_so_far(conversation.messages, whole)
        return Request(
            f"{conversation.index}/{turn}",
            list(conversation.messages),
            lambda: self.samples[conversation.index].images[:shown],
        )

    def _conversation(self, index: int) -> _Conversation:
        conversation = _Conversation(index, origin_of(self.samples, index))
        try:
            sample: Sample = self.samples[index]
            own = [message for message in sample.messages if message["role"] == "user"]
            if self.config.questions or not own:
                conversation.questions, conversation.truths = [self._question(conversation.origin)], [None]
                return conversation
            if sample.messages[0]["role"] == "system":
                conversation.messages.append(sample.messages[0])
            conversation.questions = [message["content"] for message in own]
            truths: list[str | None] = [m["content"] for m in sample.messages if m["role"] == "assistant"]
            conversation.truths = truths + [None] * (len(own) - len(truths))
        except Exception as error:  # as in training: unusual files may raise nearly anything
            conversation.skip(kind_of(error), reason_of(error))
        return conversation

    def _question(self, origin: Origin) -> str:
        """Draw a question. It depends only on the sample and the seed, not on the position in the data."""
        drawn = random.Random(f"{self.config.seed}/{origin.source}/{origin.id}/{origin.index}")
        return drawn.choice(list(self.config.questions) or [READ_ALL])

    def _sample(self, conversation: _Conversation) -> Sample:
        sample: Sample = self.samples[conversation.index]
        if (
            conversation.truths == [None] and self.config.questions
        ):  # the accepted answers belong to another question
            return Sample(sample.id, sample.images, conversation.messages, "", sample.source)
        sample.messages = conversation.messages
        return sample
