"""Skipping of unusable training samples: counted by kind and listed in `skipped.jsonl`; too many stop the run.

`pages.py` calls this module in two places: when every sample is read once before training, and when the pixels of a
page are decoded during training. One bad file among millions must not end a run on many GPUs, and a third of the data
must not be dropped silently.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from fcot_vl.common.stage import read_rows
from fcot_vl.data.chat_format import RecordError
from fcot_vl.data.collator import Prompt
from fcot_vl.data.dataset import Sample
from fcot_vl.data.mixture import MAX_SKIPPED
from fcot_vl.data.sources import kind_of, origin_of, reason_of

FILE = "skipped.jsonl"
PIXELS = "broken pixels"  # found during training, in a file whose header was intact


class Skipped:
    """Registry of the samples that a run skips.

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
            self._add(index, kind_of(error), reason_of(error))
            if sum(self.counts.values()) > self.max_share * len(self.samples):
                self.write()
                raise ValueError(self._too_many()) from None

    @staticmethod
    def refuse_unfit(prompt: Prompt, max_length: int, needs_picture: bool) -> None:
        """Raise RecordError for a valid sample that does not fit this run."""
        if needs_picture and not prompt.sizes:
            raise RecordError(
                "without a picture", "text alone: re-alignment and cached features need a picture"
            )
        if prompt.length() > max_length:
            raise RecordError("too long", f"{prompt.length():,} tokens are more than max_length {max_length}")

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
            partial = self.path.with_suffix(".partial")
            partial.write_text("".join(_line(row) for row in rows), encoding="utf-8")
            partial.replace(self.path)

    def open(self, index: int, prompt: Prompt) -> tuple[Prompt, list[Image.Image]]:
        """Return the prompt and the decoded images of a page.

        If an image cannot be decoded, return white images of the same sizes and a prompt without answer tokens. The
        batch then keeps its shape, and the page its position, on every process and after every resume.
        """
        try:
            images = self.samples[index].images
            for image in images:
                image.load()
            if tuple((image.height, image.width) for image in images) != prompt.sizes:
                raise ValueError("the picture has another size than before training")
            return prompt, images
        except Exception as error:  # damaged bytes make decoders raise nearly any error
            self._add_pixels(index, reason_of(error))
            return mute(prompt), blank(prompt)

    def with_features(self, index: int, prompt: Prompt, features: Sequence[Tensor]) -> Prompt:
        """Return the prompt of a page with cached features, without answer tokens if they are those of a blank one."""
        if not getattr(features, "is_blank", lambda _: False)(index):
            return prompt
        self._add_pixels(index, "its pixels could not be decoded when features were cached")
        return mute(prompt)

    def _add(self, index: int, kind: str, reason: str) -> None:
        self.counts[kind] += 1
        origin = origin_of(self.samples, index)
        row = {**asdict(origin), "kind": kind, "reason": reason}
        self._rows.setdefault((origin.source, origin.index), row)  # a sample drawn twice is listed once

    def _add_pixels(self, index: int, reason: str) -> None:
        """Append a row immediately. Any process may call this, and several may find the same sample."""
        if self.path is None or index in self._muted:
            return
        self._muted.add(index)
        row = {**asdict(origin_of(self.samples, index)), "kind": PIXELS, "reason": reason}
        if row in read_rows(self.path):
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def _too_many(self) -> str:
        worst, count = self.counts.most_common(1)[0]
        example = next(row["reason"] for row in reversed(self._rows.values()) if row["kind"] == worst)
        named = f"; named in {self.path}" if self.path else ""
        return (
            f"at least {sum(self.counts.values()):,} of {len(self.samples):,} records cannot be used, more than "
            f"max_skipped {self.max_share:g} allows: {count:,} {worst}, such as: {example}{named}. "
            "Fix the data or raise max_skipped"
        )


def mute(prompt: Prompt) -> Prompt:
    """Return a copy of the prompt without answer tokens."""
    return replace(prompt, is_answer=np.zeros_like(prompt.is_answer))


def blank(prompt: Prompt) -> list[Image.Image]:
    """Return white images of the sizes that the prompt was made for."""
    return [Image.new("RGB", (width, height), "white") for height, width in prompt.sizes]


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
