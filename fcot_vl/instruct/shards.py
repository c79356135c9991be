"""The way through the data that `label`, `rewrite` and `cot` share: shard by shard, resumable, nothing asked twice.

Shard k holds what is made of records 200 k to 200 k + 199, whole or not at all. Every answer is appended to the
shard's journal (`*.partial.jsonl`) as it arrives and read back by a run that goes on, until the shard is there.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from fcot_vl.data.mixture import Mixture
from fcot_vl.data.sample import Origin, Sample, write_shard
from fcot_vl.instruct.teachers import Asked, Reply, Teacher
from fcot_vl.message import one_line
from fcot_vl.progress import progress_bar

SHARD = 200  # records of the data in one file
SKIPPED = "skipped.jsonl"
Row = dict[str, Any]
Ask = Callable[[Sequence[Asked], float], list[Reply]]


class Work(Protocol):
    """What a verb does with records."""

    def answer(self, indices: Sequence[int], ask: Ask) -> tuple[list[Row], Iterable[Sample]]:
        """Make rows and records of the data's records at `indices`.

        Args:
            ask: gives a reply to each conversation; its second argument is how many records a reply stands for in
                the progress bar.

        Returns:
            Rows, for the shard's `.jsonl`: with a `kind` and a `reason` where a record is left out, with `failed`
            where an answer could not be had, with `tokens` and `prompt_tokens` where there was one. And the records,
            their pictures opened as they are taken.
        """

    def count(self, row: Row) -> None:
        """Take in a row of a finished shard, of this run or of an interrupted one."""


class Shards:
    """The shards of one run.

    Args:
        verb: names the files.
        output: folder of the run.
        samples: the data.
        teacher: who is asked.
        max_skipped: share of the records that may be left out or go unanswered before the run stops.
    """

    def __init__(self, verb: str, output: Path, samples: Any, teacher: Teacher, max_skipped: float) -> None:
        self.verb, self.output, self.samples, self.teacher = verb, output, samples, teacher
        self.max_skipped = max_skipped
        # A record drawn several times by a mixture's weight is asked once; the weight belongs to training.
        self.indices = samples.distinct() if isinstance(samples, Mixture) else list(range(len(samples)))
        self.skipped: list[Row] = []
        self.troubled: dict[
            int, Row
        ] = {}  # records left out or not answered in full, each with its first trouble
        self.prompt_tokens = self.completion_tokens = 0

    def run(self, work: Work) -> dict[str, Any]:
        """Make the shards that are missing, and count those that are there.

        Returns:
            `records`, `skipped`, `prompt_tokens` and `completion_tokens`, of the whole run.

        Raises:
            ValueError: the teacher gives up, too much is left out, or a shard cannot be written.
        """
        total = len(self.indices)
        with progress_bar() as progress:
            bar = progress.add_task("records", total=total)
            for first in range(0, total, SHARD):
                last = min(first + SHARD, total)
                journal = self.path(first).with_suffix(".partial.jsonl")
                if not self.path(first).exists():
                    self._write(first, last, work, journal, lambda count: progress.update(bar, advance=count))
                journal.unlink(missing_ok=True)
                progress.update(bar, completed=last)
                self._count(first, work)
                self._stop_above()
        return {
            "records": total,
            "skipped": len(self.skipped),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }

    def path(self, first: int) -> Path:
        """The shard that begins with item `first` of the data."""
        return self.output / f"{self.verb}-{first // SHARD:05d}.parquet"

    def _write(self, first: int, last: int, work: Work, path: Path, advance: Callable[[float], None]) -> None:
        journal = Journal(path)

        def ask(asked: Sequence[Asked], share: float) -> list[Reply]:
            got: dict[int, Reply] = {}

            def take(at: int, reply: Reply) -> None:
                journal.keep(asked[at].key, reply)
                got[at] = reply
                advance(share)

            known = dict(journal.replies)
            advance(share * sum(one.key in known for one in asked))
            self.teacher.answer(asked, known, take)
            return [known.get(one.key) or got[at] for at, one in enumerate(asked)]

        try:
            rows, samples = work.answer(self.indices[first:last], ask)
        finally:
            journal.close()
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        try:
            self.path(first).with_suffix(".jsonl").write_text(lines, encoding="utf-8")
            # Last, so that a shard that is there is whole; pictures are opened anew, one at a time.
            write_shard(self.path(first), samples)
        except OSError as error:
            raise ValueError(
                f"{self.path(first)}: cannot be written ({one_line(error)}); the same command goes on from here"
            ) from None

    def _count(self, first: int, work: Work) -> None:
        with self.path(first).with_suffix(".jsonl").open(encoding="utf-8") as file:
            for row in map(json.loads, file):
                self.prompt_tokens += row.get("prompt_tokens") or 0
                self.completion_tokens += row.get("tokens") or 0
                if "kind" in row:
                    self.skipped.append(row)
                if "kind" in row or row.get("failed"):
                    self.troubled.setdefault(row["index"], row)
                if "kind" not in row:
                    work.count(row)

    def _stop_above(self) -> None:
        """Write `skipped.jsonl` from what is finished, and stop when too much is in trouble."""
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
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [*self.skipped, *refused])
        path = self.output / SKIPPED
        path.write_text(lines, encoding="utf-8")
        troubled = [row.get("kind") or row["failed"] for row in self.troubled.values()]
        if len(troubled) > self.max_skipped * len(self.indices):
            worst, count = Counter(troubled).most_common(1)[0]
            example = next(
                row["reason"]
                for row in self.troubled.values()
                if worst in (row.get("kind"), row.get("failed"))
            )
            raise ValueError(
                f"{len(troubled):,} of {len(self.indices):,} records were skipped or not answered, more than "
                f"--max-skipped {self.max_skipped:g} allows: {count:,} {worst}, such as: {example}; "
                f"named in {path} or the shards' .jsonl"
            )


class Journal:
    """The answers of an unfinished shard, a line each, kept as they arrive.

    What a kill left of a line is cut off when the file is opened again. Replies without an answer are not kept: a
    run that goes on asks again. Safe to use from several threads.

    Attributes:
        replies: what is known, by key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.replies: dict[str, Reply] = {}
        self._lock = threading.Lock()
        whole = b""
        if path.exists():
            found = path.read_bytes()
            whole = found[: found.rfind(b"\n") + 1]
            for line in whole.split(b"\n"):
                try:
                    row = json.loads(line)
                    key = row.pop("key")
                    self.replies[key] = Reply(**row)
                except (ValueError, KeyError, TypeError, AttributeError):  # torn by a full disk: asked again
                    continue
        self._file = path.open("ab")
        self._file.truncate(len(whole))

    def keep(self, key: str, reply: Reply) -> None:
        """Write an answer down before anything else is done with it. Raises ValueError when that fails."""
        if reply.kind:
            return
        row = {name: value for name, value in asdict(reply).items() if name not in ("kind", "reason")}
        line = json.dumps({"key": key, **row}) + "\n"
        with self._lock:
            try:
                self._file.write(line.encode("ascii"))
                self._file.flush()
            except OSError as error:
                raise ValueError(
                    f"{self.path}: an answer cannot be written ({one_line(error)}); "
                    "the same command goes on from here"
                ) from None
            self.replies[key] = reply

    def close(self) -> None:
        self._file.close()


def place(origin: Origin) -> Row:
    """Where a record comes from, as the first columns of a row."""
    return asdict(origin)


def tasks_of(samples: Any) -> Iterator[str]:
    """The tasks of the records that can be read, one after the other."""
    for index in range(len(samples)):
        try:
            yield samples[index].task
        except Exception:  # counted and named when its turn comes
            continue
