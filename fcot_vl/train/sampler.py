"""Sampler of a training run: seeded optimizer steps of equally many answer tokens, the same after a resume."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

GROUP = 50  # steps planned together: enough to make them equal, few enough to stay random


class BalancedSampler(Sampler[int]):
    """Sampler whose optimizer steps hold equally many items (pages or packs) and nearly equally many answer tokens.

    The loss sums over answer tokens. In steps of unequal sums, clipping, AdamW and Muon would weigh the tokens of the
    large steps less than those of the small ones.

    The order of an epoch depends only on seed, epoch and batch size. It does not use the global random state, so a
    resumed run sees the same batches on any number of processes. The items of a step are sorted by length, so that
    processes compute items of similar length at the same time.

    Args:
        answers: Number of answer tokens of each item.
        lengths: Number of tokens of each item.
        batch_size: Number of items of an optimizer step over all processes.
        multiple: Number of which the epoch's length is made a multiple, so that every process gets equally many
            batches. The added indices start at `len(lengths)`. The datasets return blanks for them, from which nothing
            is learned.
    """

    def __init__(
        self, answers: Sequence[int], lengths: Sequence[int], batch_size: int, seed: int, multiple: int = 1
    ) -> None:
        self.answers, self.lengths = np.asarray(answers), np.asarray(lengths)
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
            for batch in _balanced(order[start : start + group], self.answers, self.batch_size)
        ]
        for at in random.permutation(len(batches)):
            yield from self._by_length(batches[at])
        yield from self._by_length(last.tolist())
        yield from range(len(self.lengths), len(self))

    def _by_length(self, indices: list[int]) -> list[int]:
        return sorted(indices, key=lambda index: self.lengths[index])


def _balanced(
    indices: np.ndarray[Any, Any], answers: np.ndarray[Any, Any], batch_size: int
) -> list[list[int]]:
    """Split the items into batches of `batch_size` with nearly equal sums of answers.

    The largest item that is left goes into the batch that has the fewest answers so far and is not full.
    """
    batches: list[list[int]] = [[] for _ in range(len(indices) // batch_size)]
    open_batches = [(0, number) for number in range(len(batches))]  # (answers so far, batch)
    for index in indices[np.argsort(-answers[indices], kind="stable")].tolist():
        total, number = heapq.heappop(open_batches)
        batches[number].append(index)
        if len(batches[number]) < batch_size:
            heapq.heappush(open_batches, (total + int(answers[index]), number))
    return batches


class SetEpoch(TrainerCallback):
    """Callback that sets the epoch of the sampler when an epoch begins.

    Trainer and accelerate also set it, but not for a sampler behind two wrappers, as on several processes after a
    resume. The epoch would then be read in the order of the first one, and some pages twice or never.
    """

    def __init__(self, sampler: BalancedSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.sampler.set_epoch(int((state.epoch or 0.0) + 1e-6))
