"""The training pages of a data folder and the order they are seen in.

Between `data` and the trainers: every conversation is tokenised once before training, so that lengths are known, what
cannot be used is skipped and named (`skipped.py`), and the order (batches of similar length, seeded, the same after a
resume) can be planned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers.utils.logging import tqdm

from fcot_vl.data.collate import Page, Prompt, tokenize_prompt
from fcot_vl.data.sample import Sample
from fcot_vl.train.skipped import Skipped

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
        lengths: their lengths in tokens.

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
        for index in tqdm(range(len(samples)), desc="tokenise", unit="page", leave=False):
            with skipped.skipping(index):
                sample = samples[index]
                prompt = tokenize_prompt(sample.messages, sample.images, processor, (1, *ratios))
                skipped.refuse_unfit(prompt, max_length, needs_picture)
                self.prompts.append(prompt)
                self.kept.append(index)
        skipped.write()
        if not self.kept:
            raise ValueError(
                f"none of the {len(samples)} pages can be used with max_length {max_length}: {skipped.describe()}"
            )
        self.lengths = [prompt.length() for prompt in self.prompts]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Page:
        at = self.kept[index]
        if self.features is not None:
            prompt = self.skipped.with_features(at, self.prompts[index], self.features)
            return Page(prompt, visual_features=self.features[at])
        prompt, images = self.skipped.open(at, self.prompts[index])
        return Page(prompt, lambda: images)

    def describe(self) -> str:
        """For the stage's first line: how many pages, how many were left out."""
        skipped = self.skipped.describe()
        return f"{len(self):,} pages" + (f" (skipped: {skipped})" if skipped else "")


class LengthGroupedOrder(Sampler[int]):
    """A seeded order in which the pages of a batch have similar lengths.

    The order of an epoch is a function of seed and epoch alone: nothing is drawn from the global random state, so a
    resumed run sees the same batches.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

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


def _by_length(indices: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return indices[np.argsort(lengths[indices], kind="stable")]
