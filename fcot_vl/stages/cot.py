"""Stage `cot`: worked answers by rejection sampling.

The paper (section 3.1.2) samples answers with reasoning from a stronger multimodal model, checks the final answer
against the truth with rules, and mixes the correct ones with the vanilla data. Here, several answers are sampled for
each question of each sample. An answer that is correct, reasoned and not a duplicate becomes a new sample with the same
page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, get_args

from PIL import Image

from fcot_vl.common.console import show
from fcot_vl.common.stage import open_stage
from fcot_vl.data.chat_format import IMAGE, count_marks
from fcot_vl.data.dataset import Sample
from fcot_vl.data.skip_log import skipped_row
from fcot_vl.data.sources.base import origin_of
from fcot_vl.data.sources.open_data import open_data
from fcot_vl.instruct.answer_selection import Select, choose, distinct_answers, has_reasoning
from fcot_vl.instruct.backends.local import LocalVlm, Reply, Request
from fcot_vl.instruct.config import BackendConfig
from fcot_vl.instruct.fact_check import tokens
from fcot_vl.instruct.mix import mix
from fcot_vl.instruct.prompt_templates import PromptTemplates, StyleExamples
from fcot_vl.instruct.sampling_report import (
    BARE,
    CUT_OFF,
    DUPLICATE,
    FAILED,
    KEPT,
    LEFT,
    NO_ANSWER,
    SPARE,
    WRONG,
    SamplingReport,
)
from fcot_vl.instruct.shard_runner import Generate, Row, ShardRunner, origin_columns, tasks_of
from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.verify import extract_answer, verify

logger = logging.getLogger(__name__)

LONGEST = 20  # maximum words of a truth; a rule cannot look for a longer one as a final answer


@dataclass
class CotConfig(BackendConfig):
    """Settings of `cot`, in addition to those of `BackendConfig`.

    Attributes:
        output: Output folder.
        data: Data to read, in any form that `open_data` opens.
        teacher: Folder or Hub id of a model. Default: the embedded teacher, if no endpoint is given either.
        samples: Number of answers sampled per question.
        temperature: Sampling temperature.
        keep: Maximum number of answers kept per question.
        select: Answers to keep: the `shortest` or `diverse` ones.
        vanilla_ratio: Share of vanilla samples in the mixture. None takes each as often as the data says.
        prompts: YAML file of templates that override those of the package.
        style: JSON lines with answers to show as examples, for templates that have a placeholder for them.

    Raises:
        ValueError: If settings contradict each other.
    """

    output: Path
    data: str
    teacher: str | None = None
    samples: int = 8
    temperature: float = 0.8
    keep: int = 2
    select: Select = "shortest"
    vanilla_ratio: float | None = None
    prompts: Path | None = None
    style: Path | None = None

    def __post_init__(self) -> None:
        self.check(self.teacher, "--teacher")
        if min(self.samples, self.keep) < 1:
            raise ValueError("--samples and --keep must be at least 1")
        if self.select not in get_args(Select):
            raise ValueError(f"unknown --select {self.select!r}; choose from {', '.join(get_args(Select))}")
        if not 0 <= self.temperature < float("inf") or (self.temperature == 0 and self.samples > 1):
            raise ValueError(
                f"--temperature must be above 0 for {self.samples} different answers, got {self.temperature:g}"
            )
        if self.vanilla_ratio is not None and not 0 <= self.vanilla_ratio < 1:
            raise ValueError(
                f"--vanilla-ratio is a share of vanilla samples, at least 0 and below 1, got {self.vanilla_ratio:g}"
            )


def cot(config: CotConfig) -> Path:
    """Sample answers to every question with a short truth, and write the correct ones as samples.

    The function writes to `config.output`: `cot-*.parquet` (`SampleFolder`, one sample per answer), a `cot-*.jsonl` for
    each of them with one row per sampled answer, `mixture.yaml` (the worked answers and their source data, for
    training), `yield.json` and `yield.png` (the yield of each task), `skipped.jsonl` and `stage.json`. A finished run
    is recognized, and an interrupted run is resumed.

    Returns:
        The output folder.

    Raises:
        StageError: If the folder has a run with other settings.
        ValueError: If the data, the teacher or a setting cannot be used, if the endpoint fails, or if too many samples
            remain without an answer.
    """
    samples = open_data(config.data, config.seed)
    teacher = config.create_backend(LocalVlm, config.teacher or str(tiny_teacher_path()), config.temperature)
    templates = PromptTemplates("cot", config.prompts, lambda: tasks_of(samples))
    style = StyleExamples(config.style, config.seed)
    names = ("samples", "temperature", "keep", "select", "vanilla_ratio", "max_new_tokens")
    settings = {name: getattr(config, name) for name in names}
    settings |= {"templates": templates.fingerprint(), "style": style.fingerprint()}
    inputs = {"data": samples.fingerprint(), **teacher.identity()}
    stage = open_stage(config.output, "cot", settings, inputs, config.seed)
    if stage.done:
        logger.info(f"cot: {config.output} is finished, {stage.figures['kept']:,} worked answers")
        return config.output
    runner = ShardRunner("cot", config.output, samples, teacher, config.max_skipped)
    logger.info(
        f"cot: {len(runner.indices):,} samples, {config.samples} answers per question by {inputs['teacher']} -> "
        f"{config.output}",
    )
    worker = _Worker(config, samples, templates, style)
    figures = runner.run(worker)
    total = worker.report.rows()["all"]
    worker.report.write(config.output, f"Worked answers by {Path(inputs['teacher']).name}")
    mix(config.output, config.data, total["kept"], config.vanilla_ratio, config.seed)
    stage.finish({**figures, **total, **config.cost(figures["prompt_tokens"], figures["completion_tokens"])})
    show(worker.report.table())
    logger.info(
        f"cot: {total['kept']:,} worked answers -> {config.output}; train with --data {config.output}/mixture.yaml"
    )
    return config.output


@dataclass
class _Question:
    """Question of a sample during sampling. `skipped` is the reason why it gets no answers."""

    index: int
    turn: int
    task: str
    messages: list[dict[str, str]]
    plain: str
    truths: list[str]
    load: Callable[[], list[Image.Image]]
    skipped: str = ""
    kept: list[tuple[int, str]] = field(default_factory=list)  # (number of the draw, text)

    def requests(self, samples: int) -> list[Request]:
        drawn = range(0 if self.skipped else samples)
        return [Request(f"{self.index}/{self.turn}/{draw}", self.messages, self.load) for draw in drawn]


class _Worker:
    """Maker of the shards of `cot`."""

    def __init__(
        self, config: CotConfig, samples: Any, templates: PromptTemplates, style: StyleExamples
    ) -> None:
        self.config, self.samples, self.templates, self.style = config, samples, templates, style
        self.report = SamplingReport()
        # Draws of one question and questions about one page are consecutive, so its image is decoded once.
        self._images = lru_cache(8)(self._read)

    def process(self, indices: Sequence[int], generate: Generate) -> tuple[list[Row], Iterator[Sample]]:
        questions: list[_Question] = []
        rows: list[Row] = []
        for index in indices:
            try:
                questions += self._questions(index)
            except Exception as error:  # as in training: unusual files may raise nearly anything
                rows.append(skipped_row(origin_of(self.samples, index), error))
        requests = [one for question in questions for one in question.requests(self.config.samples)]
        replies = iter(generate(requests, len(indices) / max(1, len(requests))))
        for question in questions:
            origin = origin_columns(origin_of(self.samples, question.index))
            question_replies = [next(replies) for _ in question.requests(self.config.samples)]
            rows += [{**origin, **row} for row in self._rows(question, question_replies)]
        return rows, (self._sample(question, *one) for question in questions for one in question.kept)

    def count(self, row: Row) -> None:
        self.report.count(row)

    def _read(self, index: int) -> list[Image.Image]:
        """Return the decoded images of a sample. Threads that share an image must not decode it at the same time."""
        return [image.convert("RGB") for image in self.samples[index].images]

    def _questions(self, index: int) -> list[_Question]:
        sample: Sample = self.samples[index]
        load = partial(self._images, index)
        task, messages = sample.task, sample.messages
        system = messages[:1] if messages and messages[0]["role"] == "system" else []
        found: list[_Question] = []
        for at, message in enumerate(messages):
            if message["role"] != "user":
                continue
            turn, plain = len(found), message["content"]
            if count_marks([message]) != len(sample.images):  # it is asked alone, with all images before it
                plain = plain.replace(IMAGE, "").strip()
            answer = messages[at + 1]["content"] if at + 1 < len(messages) else ""
            truths = sample.answers if turn == 0 and sample.answers else [extract_answer(answer)]
            truths = [truth for truth in truths if truth.strip() and len(tokens(truth)) <= LONGEST]
            examples = self.style.draw(f"{index}/{turn}")
            prompt = self.templates.fill(task, question=plain, answer="".join(truths[:1]), examples=examples)
            skipped = LEFT if prompt is None else "" if truths else NO_ANSWER
            request_messages = [*system, {"role": "user", "content": prompt or plain}]
            found.append(_Question(index, turn, task, request_messages, plain, truths, load, skipped))
        return found

    def _rows(self, question: _Question, replies: Sequence[Reply]) -> list[Row]:
        """Return one row per sampled answer, or one row with the reason why none was sampled.

        The answers to keep are added to the question.
        """
        common: Row = {
            "turn": question.turn,
            "task": question.task,
            "question": question.messages[-1]["content"],
        }
        if question.skipped:
            return [{**common, "outcome": question.skipped}]
        rows = [
            {**common, "truths": question.truths, "draw": draw, **self._outcome(question, reply)}
            for draw, reply in enumerate(replies)
        ]
        right = [row for row in rows if row["outcome"] == DUPLICATE]
        different = [right[at] for at in distinct_answers([row["response"] for row in right])]
        for row in different:
            row["outcome"] = SPARE
        texts = [row["response"] for row in different]
        for at in choose(texts, self.config.keep, self.config.select):
            different[at]["outcome"] = KEPT
            question.kept.append((different[at]["draw"], texts[at]))
        question.kept.sort()
        return rows

    def _outcome(self, question: _Question, reply: Reply) -> Row:
        """Return the outcome of a single answer. A correct one counts as a duplicate until it proves to be distinct."""
        if reply.kind:
            return {"outcome": FAILED, "failed": reply.kind, "reason": reply.reason}
        answer = extract_answer(reply.text)
        if reply.finish != "stop":
            outcome = CUT_OFF
        elif not verify(reply.text, question.truths, question=question.plain):
            outcome = WRONG
        else:
            outcome = DUPLICATE if has_reasoning(reply.text, answer) else BARE
        return {
            "outcome": outcome,
            "response": reply.text,
            "answer": answer,
            "tokens": reply.tokens,
            "prompt_tokens": reply.prompt_tokens,
            "finish_reason": reply.finish,
        }

    def _sample(self, question: _Question, draw: int, text: str) -> Sample:
        sample: Sample = self.samples[question.index]
        sample.id = f"{sample.id}-t{question.turn}-s{draw}"
        sample.messages = [*question.messages, {"role": "assistant", "content": text}]
        sample.answers = list(question.truths)
        return sample
