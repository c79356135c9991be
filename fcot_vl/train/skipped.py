"""Records that cannot be trained on: skipped, counted by kind, named in `skipped.jsonl`; too many stop the run.

Called by `pages.py` in two places: while every record is looked at once before training, and when the pixels of a page
are decoded in the middle of it. One bad file among millions must not end a run on many GPUs, and a third of the data
must not go missing without a word.
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

from fcot_vl.data.collate import Prompt
from fcot_vl.data.conversation import RecordError
from fcot_vl.data.mixture import MAX_SKIPPED
from fcot_vl.data.sample import Sample
from fcot_vl.data.sources import kind_of, origin_of, reason_of
from fcot_vl.stage import read_rows

FILE = "skipped.jsonl"
PIXELS = "broken pixels"  # found while training, behind a header that was whole


class Skipped:
    """The record of what a run leaves out.

    Args:
        samples: what is trained on.
        folder: where `skipped.jsonl` is written, a row `{source, id, index, kind, reason}` a record; None: nowhere.
        max_share: share of the samples above which the run stops, `MAX_SKIPPED` by default or what the samples' own
            mixture says. Too long records count like broken ones: both are data that was asked for and is not used.

    Attributes:
        counts: skipped items by kind.
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
        """Whatever goes wrong with record `index` inside is its own fault: it is skipped.

        Raises ValueError when that makes too many.
        """
        try:
            yield
        except Exception as error:  # decoders and templates given odd input raise nearly anything
            self._add(index, kind_of(error), reason_of(error))
            if sum(self.counts.values()) > self.max_share * len(self.samples):
                self.write()
                raise ValueError(self._too_many()) from None

    @staticmethod
    def refuse_unfit(prompt: Prompt, max_length: int, needs_picture: bool) -> None:
        """Raise RecordError for a record that is whole but not for this run."""
        if needs_picture and not prompt.sizes:
            raise RecordError(
                "without a picture", "text alone: re-alignment and cached features need a picture"
            )
        if prompt.length() > max_length:
            raise RecordError("too long", f"{prompt.length():,} tokens are more than max_length {max_length}")

    def describe(self) -> str:
        """Such as `2 too long, 1 missing file`; empty when nothing was skipped."""
        return ", ".join(f"{count:,} {kind}" for kind, count in self.counts.most_common())

    def write(self) -> None:
        """Write the file anew: what was skipped now, and what an interrupted run found while training."""
        if self.path is None or int(os.environ.get("RANK", "0")):
            return
        rows = [*self._rows.values(), *(row for row in read_rows(self.path) if row.get("kind") == PIXELS)]
        if rows or self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_suffix(".partial")
            partial.write_text("".join(_line(row) for row in rows), encoding="utf-8")
            partial.replace(self.path)

    def open(self, index: int, prompt: Prompt) -> tuple[Prompt, list[Image.Image]]:
        """The pictures of a page, decoded. Where one cannot be, blank ones of the same sizes and a prompt that learns
        nothing: the batch keeps its shape on every process and after every resume, and the page its place.
        """
        try:
            images = self.samples[index].images
            for image in images:
                image.load()
            if tuple((image.height, image.width) for image in images) != prompt.sizes:
                raise ValueError("the picture has another size than before training")
            return prompt, images
        except Exception as error:  # decoders given damaged bytes raise nearly anything
            self._add_pixels(index, reason_of(error))
            return mute(prompt), blank(prompt)

    def with_features(self, index: int, prompt: Prompt, features: Sequence[Tensor]) -> Prompt:
        """The prompt of a page whose features are cached: muted where they are those of blank paper."""
        if not getattr(features, "is_blank", lambda _: False)(index):
            return prompt
        self._add_pixels(index, "its pixels could not be decoded when features were cached")
        return mute(prompt)

    def _add(self, index: int, kind: str, reason: str) -> None:
        self.counts[kind] += 1
        origin = origin_of(self.samples, index)
        row = {**asdict(origin), "kind": kind, "reason": reason}
        self._rows.setdefault((origin.source, origin.index), row)  # a record drawn twice is named once

    def _add_pixels(self, index: int, reason: str) -> None:
        """Append a row at once, from whatever process finds it; several may find the same one."""
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
            "Mend the data or raise max_skipped"
        )


def mute(prompt: Prompt) -> Prompt:
    """The prompt with nothing to learn."""
    return replace(prompt, is_answer=np.zeros_like(prompt.is_answer))


def blank(prompt: Prompt) -> list[Image.Image]:
    """White pictures of the sizes a prompt was made for."""
    return [Image.new("RGB", (width, height), "white") for height, width in prompt.sizes]


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
