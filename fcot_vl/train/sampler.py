"""Sampler of a training run: seeded optimizer steps of samples of similar length, the same after a resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

GROUP = 50  # batches sorted together by length: large enough to reduce padding, small enough to stay random


class LengthGroupedSampler(Sampler[int]):
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


class SetEpoch(TrainerCallback):
    """Callback that sets the epoch of the sampler when an epoch begins.

    Trainer and accelerate also set it, but not for a sampler behind two wrappers, as on several processes after a
    resume. The epoch would then be read in the order of the first one, and some pages twice or never.
    """

    def __init__(self, sampler: LengthGroupedSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.sampler.set_epoch(int((state.epoch or 0.0) + 1e-6))
