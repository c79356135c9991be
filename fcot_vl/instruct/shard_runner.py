"""Pass over the data shared by `label`, `rewrite` and `cot`: shard by shard, resumable, every question answered once.

Shard k contains the results of samples 200 k to 200 k + 199. It is written completely or not at all. Every answer is
appended to the journal of the shard (`*.partial.jsonl`) when it arrives. Until the shard exists, a resumed run reads
the journal.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from fcot_vl.common.errors import one_line
from fcot_vl.common.files import write_rows
from fcot_vl.common.progress import progress_bar
from fcot_vl.data.dataset import Origin, Sample, write_shard
from fcot_vl.data.mixture import Mixture
from fcot_vl.data.skip_log import write_skipped
from fcot_vl.instruct.backends.local import GenerationBackend, Reply, Request

SHARD = 200  # samples of the data per file
Row = dict[str, Any]
Generate = Callable[[Sequence[Request], float], list[Reply]]


class ShardWorker(Protocol):
    """The part of a command that makes rows and samples of a shard."""

    def process(self, indices: Sequence[int], generate: Generate) -> tuple[list[Row], Iterable[Sample]]:
        """Make rows and samples from the samples of the data at `indices`.

        Args:
            generate: Function that returns a reply to each request. Its second argument is the number of samples by
                which each reply advances the progress bar.

        Returns:
            Rows for the `.jsonl` of the shard, and samples. A row has `kind` and `reason` if its sample is skipped,
            `failed` if no answer was obtained, and `tokens` and `prompt_tokens` otherwise. The images of the samples
            are opened as the samples are consumed.
        """

    def count(self, row: Row) -> None:
        """Count a row of a finished shard, from this run or from an interrupted one."""


class ShardRunner:
    """Runner that makes the missing shards of one run.

    Args:
        command: Command that runs, the prefix of the file names.
        output: Output folder of the run.
        samples: Data to read.
        backend: Model that answers.
        max_skipped: Maximum share of samples that may be skipped or unanswered before the run stops.
    """

    def __init__(
        self, command: str, output: Path, samples: Any, backend: GenerationBackend, max_skipped: float
    ) -> None:
        self.command, self.output, self.samples, self.backend = command, output, samples, backend
        self.max_skipped = max_skipped
        # A sample that a mixture draws several times is answered once. Its weight only matters for training.
        self.indices = samples.distinct() if isinstance(samples, Mixture) else list(range(len(samples)))
        self.skipped: list[Row] = []
        self.problems: dict[int, Row] = {}  # samples skipped or not fully answered, with the first problem
        self.prompt_tokens = self.completion_tokens = 0

    def run(self, worker: ShardWorker) -> dict[str, Any]:
        """Make the missing shards, and count those that exist.

        Returns:
            `records`, `skipped`, `prompt_tokens` and `completion_tokens` of the whole run.

        Raises:
            ValueError: If the model fails, too many samples are skipped, or a shard cannot be written.
        """
        total = len(self.indices)
        with progress_bar() as progress:
            bar = progress.add_task("samples", total=total)
            for first in range(0, total, SHARD):
                last = min(first + SHARD, total)
                journal = self.path(first).with_suffix(".partial.jsonl")
                if not self.path(first).exists():
                    self._write(
                        first, last, worker, journal, lambda count: progress.update(bar, advance=count)
                    )
                journal.unlink(missing_ok=True)
                progress.update(bar, completed=last)
                self._count(first, worker)
                self._stop_above()
        return {
            "records": total,
            "skipped": len(self.skipped),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }

    def path(self, first: int) -> Path:
        """Return the path of the shard that begins with item `first` of the data."""
        return self.output / f"{self.command}-{first // SHARD:05d}.parquet"

    def _write(
        self, first: int, last: int, worker: ShardWorker, path: Path, advance: Callable[[float], None]
    ) -> None:
        journal = Journal(path)

        def generate(requests: Sequence[Request], share: float) -> list[Reply]:
            got: dict[int, Reply] = {}

            def on_reply(at: int, reply: Reply) -> None:
                journal.append(requests[at].key, reply)
                got[at] = reply
                advance(share)

            known = dict(journal.replies)
            advance(share * sum(one.key in known for one in requests))
            self.backend.answer(requests, known, on_reply)
            return [known.get(one.key) or got[at] for at, one in enumerate(requests)]

        try:
            rows, samples = worker.process(self.indices[first:last], generate)
        finally:
            journal.close()
        try:
            write_rows(self.path(first).with_suffix(".jsonl"), rows)
            # Last, so that an existing shard is always complete. Images are opened again, one at a time.
            write_shard(self.path(first), samples)
        except OSError as error:
            raise ValueError(
                f"{self.path(first)}: cannot be written ({one_line(error)}); rerun the same command to resume"
            ) from None

    def _count(self, first: int, worker: ShardWorker) -> None:
        with self.path(first).with_suffix(".jsonl").open(encoding="utf-8") as file:
            for row in map(json.loads, file):
                self.prompt_tokens += row.get("prompt_tokens") or 0
                self.completion_tokens += row.get("tokens") or 0
                if "kind" in row:
                    self.skipped.append(row)
                if "kind" in row or row.get("failed"):
                    self.problems.setdefault(row["index"], row)
                if "kind" not in row:
                    worker.count(row)

    def _stop_above(self) -> None:
        """Write `skipped.jsonl` for the finished shards, and stop if too many samples have problems."""
        refused = [
            {
                "source": path.parent.name,
                "id": path.name,
                "index": None,
                "kind": "not an image",
                "reason": str(path),
            }
            for path in getattr(self.samples, "refused", [])
        ]
        path = write_skipped(self.output, [*self.skipped, *refused])
        problems = [row.get("kind") or row["failed"] for row in self.problems.values()]
        if len(problems) > self.max_skipped * len(self.indices):
            worst, count = Counter(problems).most_common(1)[0]
            example = next(
                row["reason"]
                for row in self.problems.values()
                if worst in (row.get("kind"), row.get("failed"))
            )
            raise ValueError(
                f"{len(problems):,} of {len(self.indices):,} samples were skipped or not answered, more than "
                f"--max-skipped {self.max_skipped:g} allows: {count:,} {worst}, such as: {example}. All are listed in "
                f"{path} or the .jsonl files of the shards; fix the data, or raise --max-skipped"
            )


class Journal:
    """Journal of the answers of an unfinished shard, one line each, written as they arrive.

    A partial line left by a kill is removed when the file is opened again. Replies without an answer are not kept, so a
    resumed run asks again. The journal is thread-safe.

    Attributes:
        replies: Known replies by key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.replies: dict[str, Reply] = {}
        self._lock = threading.Lock()
        complete = b""
        if path.exists():
            found = path.read_bytes()
            complete = found[: found.rfind(b"\n") + 1]
            for line in complete.split(b"\n"):
                try:
                    row = json.loads(line)
                    key = row.pop("key")
                    self.replies[key] = Reply(**row)
                except (
                    ValueError,
                    KeyError,
                    TypeError,
                    AttributeError,
                ):  # cut off by a full disk, requested again
                    continue
        self._file = path.open("ab")
        self._file.truncate(len(complete))

    def append(self, key: str, reply: Reply) -> None:
        """Write an answer to the journal before any other use of it.

        Raises:
            ValueError: If it cannot be written.
        """
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
                    "rerun the same command to resume"
                ) from None
            self.replies[key] = reply

    def close(self) -> None:
        self._file.close()


def origin_columns(origin: Origin) -> Row:
    """Return the origin of a sample as the first columns of a row."""
    return asdict(origin)


def tasks_of(samples: Any) -> Iterator[str]:
    """Yield the tasks of the readable samples in order."""
    for index in range(len(samples)):
        try:
            yield samples[index].task
        except Exception:  # counted and reported when the sample is processed
            continue
