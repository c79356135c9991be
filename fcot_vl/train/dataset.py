"""Training pages of a data folder and the order in which they are read.

This module lies between `data` and the trainers. Every conversation is tokenised once before training. Lengths are
therefore known, unusable samples are skipped and listed (`skipped.py`), and the order can be planned: seeded batches of
similar length that stay the same after a resume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers.utils.logging import tqdm

from fcot_vl.data.collator import Page, Prompt, tokenize_prompt
from fcot_vl.data.dataset import Sample
from fcot_vl.data.groups import group_names
from fcot_vl.data.packing import fill, plan_packs, tokens_of
from fcot_vl.data.skip_log import Skipped, mute

GROUP = 50  # batches sorted together by length: large enough to reduce padding, small enough to stay random


class TrainingPages(Dataset[Page]):
    """Map-style dataset of the pages of a data folder.

    Args:
        samples: `SampleFolder`, or any sequence of samples.
        processor: Processor of the teacher (its tiling and chat template).
        max_length: Maximum length in tokens of a page's sequence for the processor's own model. Longer pages are
            skipped.
        features: ViT features by index into `samples` (`features.FeatureCache`). Images are then not opened.
        ratios: Compress ratios of students that read the pages along with the processor's own model. Pages without an
            image are then skipped.
        skipped: Registry of skipped samples and their allowed share. By default, skipped samples are only counted.

    Attributes:
        kept: Indices into `samples` of the pages that are used.
        ids: Ids of the kept pages.
        lengths: Lengths of the kept pages in tokens.
        group_names: Groups (tasks or sources) for which losses are logged separately.
        groups: Group number of each kept page.

    Raises:
        ValueError: If more pages are skipped than allowed, or if all are.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        processor: Any,
        max_length: int,
        features: Sequence[Tensor] | None = None,
        ratios: Sequence[int] = (),
        skipped: Skipped | None = None,
    ) -> None:
        self.samples = samples
        self.features = features
        self.skipped = skipped = skipped or Skipped(samples, max_share=1.0)
        needs_picture = bool(ratios) or features is not None
        self.prompts: list[Prompt] = []
        self.kept: list[int] = []
        self.ids: list[str] = []
        tasks: list[str] = []
        for index in tqdm(range(len(samples)), desc="tokenise", unit="page", leave=False):
            with skipped.skipping(index):
                sample = samples[index]
                prompt = tokenize_prompt(sample.messages, sample.images, processor, (1, *ratios))
                skipped.refuse_unfit(prompt, max_length, needs_picture)
                self.prompts.append(prompt)
                self.kept.append(index)
                self.ids.append(sample.id)
                tasks.append(sample.task)
        skipped.write()
        if not self.kept:
            raise ValueError(
                f"none of the {len(samples)} pages can be used with max_length {max_length}: {skipped.describe()}"
            )
        self.lengths = [prompt.length() for prompt in self.prompts]
        named = group_names(samples, self.kept, tasks)
        self.group_names = sorted(set(named))
        numbers = {name: number for number, name in enumerate(self.group_names)}
        self.groups = [numbers[name] for name in named]

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(
        self,
    ) -> Iterator[Page]:  # indices past the end give blanks, so no IndexError ends an iteration
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Page:
        if index >= len(self):
            return blank(self[index % len(self)])
        at = self.kept[index]
        prompt, name, group = self.prompts[index], self.ids[index], self.groups[index]
        if self.features is not None:
            prompt = self.skipped.with_features(at, prompt, self.features)
            return Page(prompt, visual_features=self.features[at], id=name, group=group)
        prompt, images = self.skipped.open(at, prompt)
        return Page(prompt, lambda: images, id=name, group=group)

    def describe(self) -> str:
        """Return the number of pages and of skipped samples, for the first line of the stage's output."""
        skipped = self.skipped.describe()
        return f"{len(self):,} pages" + (f" (skipped: {skipped})" if skipped else "")


def blank(page: Page) -> Page:
    """Return a copy of the page without answer tokens to learn from."""
    return replace(page, prompt=mute(page.prompt), id="")


class PackedPages(Dataset[list[Page]]):
    """Map-style dataset of packs of pages; see `data.packing`.

    Attributes:
        packs: Indices into `pages`, one list per pack.
        lengths: Number of tokens of each pack, counted in the sequences of the processor's own model.
    """

    def __init__(self, pages: TrainingPages, capacity: int, seed: int) -> None:
        self.pages = pages
        self.packs = plan_packs(pages.lengths, capacity, seed)
        self.lengths = [tokens_of(pack, pages.lengths) for pack in self.packs]
        self.fill = fill(self.packs, pages.lengths, capacity)
        self.group_names = pages.group_names
        self.capacity = capacity

    def __len__(self) -> int:
        return len(self.packs)

    def __iter__(self) -> Iterator[list[Page]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> list[Page]:
        if index >= len(self):
            return [blank(page) for page in self[index % len(self)]]
        return [self.pages[at] for at in self.packs[index]]

    def describe(self) -> str:
        """Return the number of pages and packs, for the first line of the stage's output."""
        return f"{self.pages.describe()} in {len(self):,} packs of {self.capacity:,} tokens, {self.fill:.1%} full"


class LengthGroupedOrder(Sampler[int]):
    """Sampler whose optimizer steps hold items (pages or packs) of similar length.

    The order of an epoch depends only on seed, epoch and batch size. It does not use the global random state, so a
    resumed run sees the same batches on any number of processes.

    Args:
        batch_size: Number of items of an optimizer step over all processes.
        multiple: Number of which the epoch's length is made a multiple, so that every process gets equally many
            batches. The added indices start at `len(lengths)`. The datasets return blanks for them, from which nothing
            is learned.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, multiple: int = 1) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.blanks = -len(lengths) % multiple
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) + self.blanks

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        rest = len(order) % self.batch_size
        order, last = order[: len(order) - rest], order[len(order) - rest :]  # the short batch stays last
        group = GROUP * self.batch_size
        batches = [
            batch
            for start in range(0, len(order), group)
            for batch in _by_length(order[start : start + group], self.lengths).reshape(-1, self.batch_size)
        ]
        for at in random.permutation(len(batches)):
            yield from batches[at].tolist()
        yield from last.tolist()
        yield from range(len(self.lengths), len(self))


def _by_length(indices: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return indices[np.argsort(lengths[indices], kind="stable")]
