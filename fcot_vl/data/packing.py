"""Plan which samples share a packed sequence, from their lengths alone, before any image is decoded.

This module sits between the tokenized samples (`train/dataset.py`) and the collator, which concatenates the samples of
a pack. The model keeps them apart (`models/packed_attention.py`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

import numpy as np

WINDOW = 4096  # samples packed together: enough to fill the packs, few enough to emit packs as samples arrive
FULL = 0.99  # fill from which a pack is closed; the samples of other packs wait for the next window


def plan_packs(lengths: Sequence[int], capacity: int, seed: int) -> list[list[int]]:
    """Group samples so that the lengths of each group add up to at most `capacity`, and nearly to it.

    The algorithm is best fit, longest first, over windows of a seeded shuffle. Samples of packs that stayed open move
    to the next window. Samples are never split, and each is in exactly one pack.

    Args:
        lengths: Length of each sample in tokens.
        capacity: Length of a pack in tokens.
        seed: Seed of the shuffle. The plan is a function of the three arguments.

    Returns:
        Indices into `lengths`, one list per pack.

    Raises:
        ValueError: If a sample is longer than a pack.
    """
    if max(lengths, default=0) > capacity:
        raise ValueError(
            f"a sample of {max(lengths)} tokens does not fit into a pack of {capacity}: leave it out or make packs "
            "larger"
        )
    order = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    packs: list[list[int]] = []
    waiting: list[int] = []
    for start in range(0, len(order), WINDOW):
        opened = _best_fit([*waiting, *order[start : start + WINDOW]], lengths, capacity)
        waiting = []
        for pack in opened:
            if start + WINDOW >= len(order) or tokens_of(pack, lengths) >= FULL * capacity:
                packs.append(pack)
            else:
                waiting += pack
    return packs


def tokens_of(pack: Iterable[int], lengths: Sequence[int]) -> int:
    """Add up the lengths (or other counts of tokens) of the samples of a pack."""
    return sum(lengths[index] for index in pack)


def fill(packs: Sequence[Sequence[int]], lengths: Sequence[int], capacity: int) -> float:
    """Compute the share of the packs' capacity that is filled with samples."""
    return sum(tokens_of(pack, lengths) for pack in packs) / (len(packs) * capacity)


def _best_fit(indices: list[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, pack), sorted
    for index in sorted(indices, key=lambda i: -lengths[i]):
        at = bisect_left(room, (lengths[index], 0))
        if at == len(room):
            left, pack = capacity, len(packs)
            packs.append([])
        else:
            left, pack = room.pop(at)
        packs[pack].append(index)
        insort(room, (left - lengths[index], pack))
    return packs


__all__ = ["fill", "plan_packs", "tokens_of"]
