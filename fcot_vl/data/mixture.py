"""Mixture of several sources with explicit weights.

A weight is how often each sample of a source is seen in an epoch (InternVL's `repeat_time`). A weight of 2 means twice.
A weight of 0.25 means a quarter of the samples, drawn once by the seed. The plan (item -> source and sample) is made
before anything is read. It is the same in every epoch and after every resume. The training run chooses the order of the
items.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fcot_vl.data.dataset import Origin, Sample, Samples

logger = logging.getLogger(__name__)


class Mixture(Samples):
    """Samples of several sources, map-style.

    Args:
        sources: Sources, at least one, with distinct names.
        weights: One weight per source, above 0.
        n_items: Number of items of an epoch. Default: the sum of the sizes times the weights. If given, the weights are
            scaled to reach this number; they then only set how often a sample is seen relative to a sample of another
            source.
        seed: Seed for drawing samples of the sources that are not repeated a whole number of times.
        max_skipped: Maximum share of unusable samples that the mixture asks for. None leaves the choice to the run.

    Attributes:
        plan: Source and sample of every item, `[items, 2]`, ordered by source.

    Raises:
        ValueError: If a weight is invalid, a name is used twice, or no sample would be drawn.
    """

    def __init__(
        self,
        sources: Sequence[tuple[str, Samples]],
        weights: Sequence[float],
        n_items: int | None = None,
        seed: int = 0,
        max_skipped: float | None = None,
    ) -> None:
        names = [name for name, _ in sources]
        if len(set(names)) < len(names):
            raise ValueError(f"two sources share a name: {', '.join(names)}")
        self.names, self.sources = names, [source for _, source in sources]
        self.max_skipped = max_skipped
        counts = draw_counts([len(source) for source in self.sources], weights, n_items)
        drawn = [
            draw(len(source), count, seed, name)
            for name, source, count in zip(names, self.sources, counts, strict=True)
        ]
        self.plan = np.concatenate(
            [np.stack([np.full(len(rows), at), rows], axis=1) for at, rows in enumerate(drawn)]
        )
        for name, source, count in zip(names, self.sources, counts, strict=True):
            logger.info(f"data: {name}: {count:,} items from {len(source):,} samples")

    def __len__(self) -> int:
        return len(self.plan)

    def read(self, index: int) -> Sample:
        source, at = self.plan[index].tolist()
        return self.sources[source][at]

    def origin(self, index: int) -> Origin:
        """Return the origin of an item, with the name of the source in this mixture."""
        source, at = self.plan[index].tolist()
        return replace(self.sources[source].origin(at), source=self.names[source])

    def distinct(self) -> list[int]:
        """Return the first item of every sample, in order, so that each sample appears once."""
        first: list[int] = np.unique(self.plan, axis=0, return_index=True)[1].tolist()
        return sorted(first)

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the names and fingerprints of the sources and of the plan."""
        digest = hashlib.sha256()
        for name, source in zip(self.names, self.sources, strict=True):
            digest.update(f"{name} {source.fingerprint()}\n".encode())
        digest.update(self.plan.astype("<i8").tobytes())
        return digest.hexdigest()


MOST_ITEMS = 1_000_000_000  # of an epoch; the plan takes 16 bytes for each


def draw_counts(sizes: Sequence[int], weights: Sequence[float], n_items: int | None = None) -> list[int]:
    """Compute the number of items per source: size times weight, or its share of `n_items`, rounded to whole items.

    Raises:
        ValueError: If a weight is not above 0, a source is empty, or no item would be drawn.
    """
    for size, weight in zip(sizes, weights, strict=True):
        if not 0 < weight < float("inf"):
            raise ValueError(f"a weight must be above 0, got {weight}; leave the source out instead")
        if size == 0:
            raise ValueError("a source has no sample; leave it out")
    wanted = [size * weight for size, weight in zip(sizes, weights, strict=True)]
    if n_items is None and sum(wanted) > MOST_ITEMS:
        raise ValueError(
            f"the weights draw {sum(wanted):.3g} items per epoch, more than {MOST_ITEMS:,}; lower them"
        )
    if n_items is None:
        counts = [int(want + 0.5) for want in wanted]
    else:
        exact = [want * n_items / sum(wanted) for want in wanted]
        counts = [int(share) for share in exact]
        # Distribute the remaining items by largest remainder, so that the sum is exact.
        by_rest = sorted(range(len(exact)), key=lambda at: (counts[at] - exact[at], at))
        for at in by_rest[: n_items - sum(counts)]:
            counts[at] += 1
    if sum(counts) < 1:
        raise ValueError("the mixture draws no sample; raise `records` or a weight")
    return counts


def draw(size: int, count: int, seed: int, name: str) -> NDArray[np.int64]:
    """Draw `count` indices out of `size`, in ascending order.

    Each index appears `count // size` times. The remaining ones are drawn by the seed and the name. The draw does not
    depend on the other sources of the mixture.
    """
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    whole, rest = divmod(count, size)
    indices = [np.tile(np.arange(size), whole), random.permutation(size)[:rest]]
    return np.sort(np.concatenate(indices).astype(np.int64), kind="stable")
