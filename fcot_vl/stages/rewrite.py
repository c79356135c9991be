"""Stage `rewrite`: the answers of a dataset, rewritten in the teacher's tone by a language model.

In the paper, InternLM2.5-7B rewrites the instruction data with the tone of the teacher (section 3.1.2). The writer only
sees text. A rewrite that does not keep the facts of the answer (`fact_check.py`) is discarded, and the original answer
is kept.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcot_vl.common.stage import open_stage
from fcot_vl.data.dataset import Sample
from fcot_vl.data.skip_log import skipped_row
from fcot_vl.data.sources.base import origin_of
from fcot_vl.data.sources.open_data import open_data
from fcot_vl.instruct.backends.local import LocalLlm, Reply, Request
from fcot_vl.instruct.config import BackendConfig
from fcot_vl.instruct.fact_check import reason_to_reject
from fcot_vl.instruct.prompt_templates import PromptTemplates, StyleExamples
from fcot_vl.instruct.shard_runner import Generate, Row, ShardRunner, origin_columns, tasks_of

logger = logging.getLogger(__name__)

REWRITTEN, KEPT, LEFT = "rewritten", "kept", "left"  # outcomes of an answer


@dataclass
class RewriteConfig(BackendConfig):
    """Settings of `rewrite`, in addition to those of `BackendConfig`.

    Attributes:
        output: Output folder.
        data: Data to read, in any form that `open_data` opens.
        writer: Folder or Hub id of a language model with a chat template, if no endpoint is given.
        style: JSON lines with the teacher's answers, such as the output of `label`, as examples of the tone.
        prompts: YAML file of templates that override those of the package.

    Raises:
        ValueError: If settings contradict each other.
    """

    output: Path
    data: str
    writer: str | None = None
    style: Path | None = None
    prompts: Path | None = None

    def __post_init__(self) -> None:
        if self.writer is None and self.endpoint is None:
            raise ValueError("give --writer (a language model loaded here), or --endpoint and --model")
        self.check(self.writer, "--writer")


def rewrite(config: RewriteConfig) -> Path:
    """Rewrite every answer whose task has a template, and write the samples.

    The function writes to `config.output`: `rewrite-*.parquet` (`SampleFolder`), a `rewrite-*.jsonl` for each of them
    with one row per answer (the original, the rewrite, the outcome and its reason), `skipped.jsonl` with one row per
    sample whose images or text cannot be used, and `stage.json`. A finished run is recognized, and an interrupted run
    is resumed.

    Returns:
        The output folder.

    Raises:
        StageError: If the folder has a run with other settings.
        ValueError: If the data, the writer or a setting cannot be used, if the endpoint fails, or if too many samples
            remain without an answer.
    """
    samples = open_data(config.data, config.seed)
    writer = config.create_backend(LocalLlm, str(config.writer))
    templates = PromptTemplates("rewrite", config.prompts, lambda: tasks_of(samples))
    style = StyleExamples(config.style, config.seed)
    settings = {
        "templates": templates.fingerprint(),
        "style": style.fingerprint(),
        "max_new_tokens": config.max_new_tokens,
    }
    inputs = {"data": samples.fingerprint(), **writer.identity()}
    stage = open_stage(config.output, "rewrite", settings, inputs, config.seed)
    if stage.done:
        logger.info(f"rewrite: {config.output} is finished, {stage.figures[REWRITTEN]:,} answers rewritten")
        return config.output
    runner = ShardRunner("rewrite", config.output, samples, writer, config.max_skipped)
    logger.info(f"rewrite: {len(runner.indices):,} samples by {inputs['teacher']} -> {config.output}")
    worker = _Worker(samples, templates, style)
    figures = runner.run(worker) | worker.figures()
    stage.finish(figures | config.cost(figures["prompt_tokens"], figures["completion_tokens"]))
    logger.info(
        f"rewrite: {figures[REWRITTEN]:,} answers rewritten, {figures[KEPT]:,} kept unchanged, "
        f"{figures[LEFT]:,} without a template for their task, {figures['skipped']:,} samples skipped -> "
        f"{config.output}",
    )
    for reason, count in worker.reasons.most_common():
        logger.info(f"  {count:,} kept: {reason}")
    return config.output


@dataclass
class _Answer:
    """Answer of a sample: message number `at`, and the prompt for the writer, if any."""

    index: int
    at: int
    task: str
    question: str
    original: str
    prompt: str | None

    @property
    def key(self) -> str:
        return f"{self.index}/{self.at}"


class _Worker:
    """Maker of the shards of `rewrite`."""

    def __init__(self, samples: Any, templates: PromptTemplates, style: StyleExamples) -> None:
        self.samples, self.templates, self.style = samples, templates, style
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def process(self, indices: Sequence[int], generate: Generate) -> tuple[list[Row], Iterator[Sample]]:
        answers: dict[int, list[_Answer]] = {}
        skipped: dict[int, Row] = {}
        for index in indices:
            try:
                answers[index] = self._answers(index)
            except Exception as error:  # as in training: unusual files may raise nearly anything
                skipped[index] = skipped_row(origin_of(self.samples, index), error)
        requested = [one for found in answers.values() for one in found if one.prompt is not None]
        conversations = [
            Request(one.key, [{"role": "user", "content": str(one.prompt)}]) for one in requested
        ]
        replies = generate(conversations, len(answers) / max(1, len(requested)))
        by_key = {one.key: reply for one, reply in zip(requested, replies, strict=True)}
        rows: list[Row] = []
        texts: dict[int, dict[int, str]] = {index: {} for index in answers}
        for index in indices:
            if index in skipped:
                rows.append(skipped[index])
            for one in answers.get(index, []):
                row = _row(one, by_key.get(one.key))
                rows.append({**origin_columns(origin_of(self.samples, index)), **row})
                if row["outcome"] == REWRITTEN:
                    texts[index][one.at] = row["rewrite"]
        return rows, (self._sample(index, changed) for index, changed in texts.items())

    def count(self, row: Row) -> None:
        self.outcomes[row["outcome"]] += 1
        if row["outcome"] == KEPT:
            self.reasons[row["reason"].partition(":")[0]] += 1

    def figures(self) -> dict[str, Any]:
        counts = {outcome: self.outcomes[outcome] for outcome in (REWRITTEN, KEPT, LEFT)}
        return {"answers": self.outcomes.total(), **counts, "kept_because": dict(self.reasons.most_common())}

    def _answers(self, index: int) -> list[_Answer]:
        sample: Sample = self.samples[index]
        for image in sample.images:
            image.convert("RGB")  # finds a broken image before its answer is paid for
        task, question, found = sample.task, "", []
        for at, message in enumerate(sample.messages):
            if message["role"] == "user":
                question = message["content"]
            elif message["role"] == "assistant":
                original = message["content"]
                one = _Answer(index, at, task, question, original, None)
                if original.strip():
                    examples = self.style.draw(one.key)
                    one.prompt = self.templates.fill(
                        task, question=question, answer=original, examples=examples
                    )
                found.append(one)
        return found

    def _sample(self, index: int, changed: dict[int, str]) -> Sample:
        sample: Sample = self.samples[index]
        sample.messages = [
            {**message, "content": changed.get(at, message["content"])}
            for at, message in enumerate(sample.messages)
        ]
        return sample


def _row(one: _Answer, reply: Reply | None) -> Row:
    """Return the row of an answer with its outcome."""
    row: Row = {"turn": one.at, "task": one.task, "question": one.question, "answer": one.original}
    if reply is None:
        return {**row, "outcome": LEFT}
    if reply.kind:
        return {**row, "outcome": KEPT, "reason": f"{reply.kind}: {reply.reason}", "failed": reply.kind}
    if reply.finish == "stop":
        reason = reason_to_reject(one.original, reply.text, one.question)
    else:
        reason = f"cut off: ended by {reply.finish!r}"
    return {
        **row,
        "rewrite": reply.text,
        "outcome": REWRITTEN if reason is None else KEPT,
        "reason": reason,
        "tokens": reply.tokens,
        "prompt_tokens": reply.prompt_tokens,
        "finish_reason": reply.finish,
    }
