"""The training pages of a data folder and the order they are seen in.

Between `data` and the trainers: every conversation is tokenised once before training, so that lengths are known, what
cannot be used is skipped and named (`skipped.py`), and the order (batches of similar length, seeded, the same after a
resume) can be planned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers.utils.logging import tqdm

from fcot_vl.data.collate import Page, Prompt, tokenize_prompt
from fcot_vl.data.groups import group_names
from fcot_vl.data.packing import fill, plan_packs, tokens_of
from fcot_vl.data.sample import Sample
from fcot_vl.train.skipped import Skipped, mute

GROUP = 50  # batches sorted together by length: large enough to cut padding, small enough to stay random


class TrainingPages(Dataset[Page]):
    """Map-style pages of a data folder.

    Args:
        samples: `SampleFolder`, or any sequence of samples.
        processor: of the teacher (its tiling and chat template).
        max_length: pages whose sequence for the processor's own model is longer are skipped.
        features: the ViT's features by index into `samples` (`features.FeatureCache`); pictures are then not opened.
        ratios: compress ratios of students that read the pages beside the processor's own model; pages without a
            picture are then skipped.
        skipped: what is left out, and how much may be; by default counted alone.

    Attributes:
        kept: indices into `samples` of the pages that are used.
        ids: their names.
        lengths: their lengths in tokens.
        group_names: the groups (tasks or sources) that losses are told apart by.
        groups: the number of each page's group.

    Raises:
        ValueError: more pages are skipped than may be, or all.
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
    ) -> Iterator[Page]:  # indices past the end are blanks, so IndexError never ends an iteration
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
        """For the stage's first line: how many pages, how many were left out."""
        skipped = self.skipped.describe()
        return f"{len(self):,} pages" + (f" (skipped: {skipped})" if skipped else "")


def blank(page: Page) -> Page:
    """The page with nothing to learn from it."""
    return replace(page, prompt=mute(page.prompt), id="")


class PackedPages(Dataset[list[Page]]):
    """Packs of pages; see `data.packing`.

    Attributes:
        packs: indices into `pages`, pack by pack.
        lengths: tokens of each pack, counted in the sequences of the processor's own model.
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
        """For the stage's first line."""
        return f"{self.pages.describe()} in {len(self):,} packs of {self.capacity:,} tokens, {self.fill:.1%} full"


class LengthGroupedOrder(Sampler[int]):
    """A seeded order in which the items (pages or packs) of an optimizer step have similar lengths.

    The order of an epoch is a function of seed, epoch and batch size alone: nothing is drawn from the global random
    state, so a resumed run sees the same batches, on however many processes.

    Args:
        batch_size: items of an optimizer step over all processes.
        multiple: fill the epoch up to a multiple of this, so that every process has as many batches, with indices
            from `len(lengths)` on, which the datasets give as blanks: nothing is learned from them.
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
