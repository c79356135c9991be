"""Skipping of unusable samples: counted by kind and listed in `skipped.jsonl`; too many stop the run.

All stages that skip samples write this file: training, evaluation on a benchmark, the instruction stages and the cache
of a stream. One bad file among millions must not end a run on many GPUs, and a third of the data must not be dropped
silently.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcot_vl.common.errors import one_line
from fcot_vl.common.files import append_rows, read_rows, write_rows
from fcot_vl.data.chat_format import SampleError
from fcot_vl.data.dataset import Origin, Sample
from fcot_vl.data.images import ImageError
from fcot_vl.data.sources.base import origin_of

FILE = "skipped.jsonl"
MAX_SKIPPED = 0.01  # maximum share of unusable samples before a run stops
PIXELS = "broken pixels"  # found during training, in a file whose header was intact


def kind_of(error: BaseException) -> str:
    """Return the category that a sample which raised `error` is counted under."""
    if isinstance(error, SampleError):
        return error.kind
    if "no such file" in str(error).lower():
        return "missing file"
    if isinstance(error, ImageError | OSError | SyntaxError):  # Pillow raises the last two
        return "broken image"
    return "malformed conversation" if isinstance(error, ValueError) else "unusable record"


def reason_of(error: BaseException) -> str:
    """Return the message of an error in one line, with its type if the message is not meant for people."""
    meant = isinstance(error, ValueError | OSError)
    return one_line(error) if meant else f"{type(error).__name__}: {one_line(error)}"


def skipped_row(origin: Origin, error: BaseException) -> dict[str, Any]:
    """Return the row `{source, id, index, kind, reason}` of a sample that is skipped because of `error`."""
    return {**asdict(origin), "kind": kind_of(error), "reason": reason_of(error)}


def write_skipped(folder: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Replace the `skipped.jsonl` of a folder atomically and return its path."""
    path = folder / FILE
    write_rows(path, rows)
    return path


class SkipLog:
    """Log of the samples that a training run skips.

    `train.dataset` uses it in two places: when every sample is read once before training, and when the pixels of an
    image are decoded during training.

    Args:
        samples: Training samples.
        folder: Folder for `skipped.jsonl`, which holds one row `{source, id, index, kind, reason}` per sample. If None,
            no file is written.
        max_share: Maximum share of skipped samples; above it the run stops. Default: the value of the samples' mixture
            if it has one, else `MAX_SKIPPED`. Samples that are too long count like broken ones: both are data that was
            requested and is not used.

    Attributes:
        counts: Number of skipped samples by kind.
    """

    def __init__(
        self, samples: Sequence[Sample], folder: Path | None = None, max_share: float | None = None
    ) -> None:
        own: float | None = getattr(samples, "max_skipped", None)
        self.max_share = next(share for share in (max_share, own, MAX_SKIPPED) if share is not None)
        self.samples = samples
        self.path = None if folder is None else folder / FILE
        self.counts: Counter[str] = Counter()
        self._rows: dict[tuple[str, int], dict[str, Any]] = {}
        self._muted: set[int] = set()

    @contextmanager
    def skipping(self, index: int) -> Iterator[None]:
        """Skip sample `index` if the body of the context raises any error.

        Raises:
            ValueError: If too many samples are skipped.
        """
        try:
            yield
        except Exception as error:  # odd input makes decoders and templates raise nearly any error
            self._add(index, error)
            if sum(self.counts.values()) > self.max_share * len(self.samples):
                self.write()
                raise ValueError(self._too_many()) from None

    def describe(self) -> str:
        """Return a summary such as `2 too long, 1 missing file`, empty if nothing was skipped."""
        return ", ".join(f"{count:,} {kind}" for kind, count in self.counts.most_common())

    def write(self) -> None:
        """Rewrite the file with the samples skipped now and those that an interrupted run found during training."""
        if self.path is None or int(os.environ.get("RANK", "0")):
            return
        rows = [*self._rows.values(), *(row for row in read_rows(self.path) if row.get("kind") == PIXELS)]
        if rows or self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_skipped(self.path.parent, rows)

    def add_pixels(self, index: int, reason: str) -> None:
        """Append a sample whose pixels are broken, immediately.

        Any process may call this, and several may find the same sample.
        """
        if self.path is None or index in self._muted:
            return
        self._muted.add(index)
        row = {**asdict(origin_of(self.samples, index)), "kind": PIXELS, "reason": reason}
        if row in read_rows(self.path):
            return
        append_rows(self.path, [row])

    def _add(self, index: int, error: BaseException) -> None:
        row = skipped_row(origin_of(self.samples, index), error)
        self.counts[row["kind"]] += 1
        self._rows.setdefault((row["source"], row["index"]), row)  # a sample drawn twice is listed once

    def _too_many(self) -> str:
        worst, count = self.counts.most_common(1)[0]
        example = next(row["reason"] for row in reversed(self._rows.values()) if row["kind"] == worst)
        named = f"; named in {self.path}" if self.path else ""
        return (
            f"at least {sum(self.counts.values()):,} of {len(self.samples):,} samples cannot be used, more than "
            f"max_skipped {self.max_share:g} allows: {count:,} {worst}, such as: {example}{named}. "
            "Fix the data or raise max_skipped"
        )
