"""The `label` stage: a teacher's answers over pictures, as Parquet shards of records.

Reads any data (`open_data`) or a folder of pictures; training reads what it writes. Shard k holds records
200 k to 200 k + 199 of the data, whole or not at all, so an interrupted run goes on with the next one.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fcot_vl.data.mixture import Mixture, open_data
from fcot_vl.data.sample import Origin, Sample, write_shard
from fcot_vl.data.sources import PictureFolder, kind_of, origin_of, reason_of
from fcot_vl.instruct.teachers import Asked, EndpointTeacher, LocalTeacher, Reply, Teacher
from fcot_vl.model.tiny import tiny_teacher_path
from fcot_vl.progress import progress_bar
from fcot_vl.stage import open_stage

READ_ALL = "Read all text in this picture, line by line, exactly as it is printed."
SHARD = 200  # records of the data in one file
SKIPPED = "skipped.jsonl"


@dataclass
class LabelConfig:
    """Settings of labelling.

    Attributes:
        output: folder to write.
        data, images: what is labelled, one of both: anything `open_data` opens, or a folder of pictures.
        teacher: folder or hub id of a model; the embedded teacher where neither it nor an endpoint is given.
        endpoint, model: an OpenAI-compatible server and the name of a model there, in place of `teacher`.
        questions: asked in place of the records' own, one drawn for each record by the seed. Where there is no
            question at all, `READ_ALL` is asked.
        keep_truth: an answer that the record has stays its label; the teacher's is written beside it.
        max_new_tokens: most tokens of an answer; one cut off there is not used.
        batch_size: most pages decoded together. This and the next two do not belong to the settings of a run.
        requests: most requests in flight at an endpoint.
        max_skipped: share of the records above which the run stops.
        seed: draws the questions, and the records of a mixture.

    Raises:
        ValueError: settings that do not go together.
    """

    output: Path
    data: str | None = None
    images: Path | None = None
    teacher: str | None = None
    endpoint: str | None = None
    model: str | None = None
    questions: Sequence[str] = ()
    keep_truth: bool = False
    max_new_tokens: int = 1024
    batch_size: int = 16
    requests: int = 8
    max_skipped: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.data is None) == (self.images is None):
            raise ValueError("give either --data or --images, what is to be labelled")
        if (self.endpoint is None) != (self.model is None):
            raise ValueError("--endpoint and --model, the model's name there, go together")
        if self.endpoint is not None and self.teacher is not None:
            raise ValueError("give either --teacher, loaded here, or --endpoint")
        if self.keep_truth and self.questions:
            raise ValueError("--keep-truth keeps answers to the records' own questions: leave --question out")
        if any(not question.strip() for question in self.questions):
            raise ValueError("--question is empty")
        if min(self.max_new_tokens, self.batch_size, self.requests) < 1:
            raise ValueError("--max-new-tokens, --batch-size and --requests must be at least 1")


def label(config: LabelConfig) -> Path:
    """Answer every record's questions and write the records with the answers.

    Writes to `config.output`: `label-*.parquet` (`SampleFolder`), beside each a `label-*.jsonl` with a row a question
    (what was asked, the teacher's answer, the truth if the record has one, tokens, how it ended), `skipped.jsonl` with
    a row for each record left out, and `stage.json`. A finished run is recognised, an interrupted one resumed.

    Returns:
        The output folder.

    Raises:
        StageError: the folder holds a run with other settings.
        ValueError: the data, the teacher or a setting cannot be used, or too many records had to be skipped.
    """
    samples = _open(config)
    teacher = _teacher(config)
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
    # A record drawn several times by a mixture's weight is asked once; the weight belongs to training.
    indices = samples.distinct() if isinstance(samples, Mixture) else list(range(len(samples)))
    print(f"label: {len(indices):,} records by {inputs['teacher']} -> {config.output}", flush=True)
    work = _Work(config, samples, indices, teacher)
    figures = work.run()
    stage.finish(figures)
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
    return PictureFolder(config.images)


def _teacher(config: LabelConfig) -> Teacher:
    if config.endpoint is not None and config.model is not None:
        return EndpointTeacher(config.endpoint, config.model, config.max_new_tokens, config.requests)
    path = config.teacher or str(tiny_teacher_path())
    return LocalTeacher(path, config.max_new_tokens, config.batch_size)


@dataclass
class _Page:
    """A record while it is labelled: what is asked, and the conversation as it grows."""

    index: int
    origin: Origin
    questions: list[str] = field(default_factory=list)
    truths: list[str | None] = field(default_factory=list)  # of each question, where the record has one
    messages: list[dict[str, str]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: bool = False

    def skip(self, kind: str, reason: str) -> None:
        self.skipped = True
        self.rows.append({**_place(self.origin), "kind": kind, "reason": reason})

    def take(self, turn: int, reply: Reply, keep_truth: bool) -> None:
        """Add a reply. Where there is none, or it would be the label and cannot, the record is skipped."""
        truth = self.truths[turn]
        if reply.kind:
            self.skip(reply.kind, reply.reason)
            return
        self.rows.append(
            {
                **_place(self.origin),
                "turn": turn,
                "question": self.questions[turn],
                "answer": reply.text,
                "truth": truth,
                "tokens": reply.tokens,
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
    """The shards of one run."""

    def __init__(self, config: LabelConfig, samples: Any, indices: Sequence[int], teacher: Teacher) -> None:
        self.config, self.samples, self.indices, self.teacher = config, samples, indices, teacher
        self.skipped: list[dict[str, Any]] = []
        self.questions = self.tokens = 0

    def run(self) -> dict[str, Any]:
        total = len(self.indices)
        with progress_bar() as progress:
            bar = progress.add_task("records", total=total)
            for first in range(0, total, SHARD):
                last = min(first + SHARD, total)
                if not self._shard(first).exists():
                    self._write(first, last, lambda count: progress.update(bar, advance=count))
                progress.update(bar, completed=last)
                self._count(first)
                self._stop_above()
        return {
            "records": total,
            "labelled": total - len(self.skipped),
            "skipped": len(self.skipped),
            "questions": self.questions,
            "tokens": self.tokens,
        }

    def _shard(self, first: int) -> Path:
        return self.config.output / f"label-{first // SHARD:05d}.parquet"

    def _write(self, first: int, last: int, advance: Callable[[int], None]) -> None:
        pages = [self._page(index) for index in self.indices[first:last]]
        advance(sum(page.skipped for page in pages))
        for turn in range(max(len(page.questions) for page in pages)):
            asked = [page for page in pages if not page.skipped and turn < len(page.questions)]
            for page in asked:
                page.messages.append({"role": "user", "content": page.questions[turn]})
            replies = self.teacher.answer(
                [self._asked(page) for page in asked], advance if turn == 0 else lambda _: None
            )
            for page, reply in zip(asked, replies, strict=True):
                page.take(turn, reply, self.config.keep_truth)
        rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for page in pages for row in page.rows)
        self._shard(first).with_suffix(".jsonl").write_text(rows, encoding="utf-8")
        # Last, so that a shard that is there is whole; pictures are opened anew, one at a time.
        write_shard(self._shard(first), (self._sample(page) for page in pages if not page.skipped))

    def _asked(self, page: _Page) -> Asked:
        return Asked(list(page.messages), lambda: self.samples[page.index].images)

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
        except Exception as error:  # as for training: odd files raise nearly anything
            page.skip(kind_of(error), reason_of(error))
        return page

    def _question(self, origin: Origin) -> str:
        """Depends on the record and the seed alone, not on where in the data it stands."""
        drawn = random.Random(f"{self.config.seed}/{origin.source}/{origin.id}/{origin.index}")
        return drawn.choice(list(self.config.questions) or [READ_ALL])

    def _sample(self, page: _Page) -> Sample:
        sample: Sample = self.samples[page.index]
        if page.truths == [None] and self.config.questions:  # accepted answers were to another question
            return Sample(sample.id, sample.images, page.messages, "", sample.source)
        sample.messages = page.messages
        return sample

    def _count(self, first: int) -> None:
        """Take in the rows of a finished shard, of this run or of an interrupted one."""
        with self._shard(first).with_suffix(".jsonl").open(encoding="utf-8") as file:
            for row in map(json.loads, file):
                if "kind" in row:
                    self.skipped.append(row)
                else:
                    self.questions += 1
                    self.tokens += row["tokens"] or 0

    def _stop_above(self) -> None:
        """Write `skipped.jsonl` from what is finished, and stop when it holds too much."""
        skipped = self.skipped
        refused = [
            {
                "source": path.parent.name,
                "id": path.name,
                "index": None,
                "kind": "no picture",
                "reason": str(path),
            }
            for path in getattr(self.samples, "refused", [])
        ]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [*skipped, *refused])
        path = self.config.output / SKIPPED
        path.write_text(lines, encoding="utf-8")
        if len(skipped) > self.config.max_skipped * len(self.indices):
            worst, count = Counter(row["kind"] for row in skipped).most_common(1)[0]
            example = next(row["reason"] for row in skipped if row["kind"] == worst)
            raise ValueError(
                f"{len(skipped):,} of {len(self.indices):,} records were skipped, more than --max-skipped "
                f"{self.config.max_skipped:g} allows: {count:,} {worst}, such as: {example}; named in {path}"
            )


def _place(origin: Origin) -> dict[str, Any]:
    return asdict(origin)
