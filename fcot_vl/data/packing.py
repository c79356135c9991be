"""Which records share a sequence: a plan made from lengths alone, before a pixel is decoded.

Between the tokenised records (`train/pages.py`) and the collator, which lays the records of a pack one behind the
other. The model keeps them apart (`model/packed_attention.py`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

import numpy as np

WINDOW = (
    4096  # records packed together: many enough to fill packs, few enough that packs are made as records come
)
FULL = 0.99  # a pack this full is closed; the records of others wait for the next window


def plan_packs(lengths: Sequence[int], capacity: int, seed: int) -> list[list[int]]:
    """Group records so that each group's lengths add up to `capacity` at most, and nearly so.

    Best fit, longest first, over windows of a seeded shuffle; records of packs that stayed open go into the next
    window. Records are whole, and every one is in exactly one pack.

    Args:
        lengths: tokens of each record.
        capacity: tokens of a pack.
        seed: of the shuffle; the plan is a function of the three arguments.

    Returns:
        Indices into `lengths`, pack by pack.

    Raises:
        ValueError: a record is longer than a pack.
    """
    if max(lengths, default=0) > capacity:
        raise ValueError(
            f"a record of {max(lengths)} tokens does not fit into a pack of {capacity}: leave it out or make packs "
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
    """Tokens of one pack."""
    return sum(lengths[index] for index in pack)


def fill(packs: Sequence[Sequence[int]], lengths: Sequence[int], capacity: int) -> float:
    """Share of the packs' tokens that are records."""
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
