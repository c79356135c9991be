"""Compute sampling weights from the losses of a coarse run (paper, Sec. 3.1.2, "Data sampling pipeline").

This module does the arithmetic between the loss log of a coarse post-training and the mixture that the formal training
reads. Easy groups get lower weights and hard groups get higher ones. Groups with long generated answers never get
higher weights.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from fcot_vl.common.files import read_rows

FLOOR, CAP = 0.25, 4.0  # ours: the paper gives no thresholds
GENERATION_TOKENS = 64  # ours: mean answer tokens from which a group is a generation task


@dataclass(frozen=True)
class Group:
    """Statistics of one group of samples in the coarse run.

    Attributes:
        loss: Cross-entropy in nats per answer token, over the last half of the run.
        tokens: Number of answer tokens that the loss is averaged over.
        answer_tokens: Mean number of answer tokens per sample; None if unknown.
    """

    loss: float
    tokens: int
    answer_tokens: float | None = None


def read_groups(log: Path, answer_tokens: Mapping[str, float] | None = None) -> dict[str, Group]:
    """Read the groups and their losses from a loss log.

    The loss of a group is the mean over its answer tokens in the last half of the run's steps. In the first steps,
    every loss falls from the starting point of the model, which says little about how hard the group is to learn. For a
    group that does not occur in the last half, the whole run is used.

    Args:
        log: `losses.jsonl` of a finished or interrupted post-training.
        answer_tokens: Mean number of answer tokens per sample, by group.

    Raises:
        ValueError: If the log is missing or has no losses by group.
    """
    if not log.is_file():
        raise ValueError(f"{log}: no such file; give the output folder of a post-train run")
    rows = read_rows(log)
    half = rows[len(rows) // 2 :]
    names = sorted({name for row in rows for name in row.get("groups", {})})
    if not names:
        raise ValueError(f"{log}: no losses by group; train again; older versions did not write them")
    groups = {}
    for name in names:
        seen = [row["groups"][name] for row in half if name in row.get("groups", {})] or [
            row["groups"][name] for row in rows if name in row.get("groups", {})
        ]
        tokens = sum(step["tokens"] for step in seen)
        if tokens:
            loss = sum(step["ce"] * step["tokens"] for step in seen) / tokens
            groups[name] = Group(loss, tokens, (answer_tokens or {}).get(name))
    return groups


def sampling_weights(
    groups: Mapping[str, Group], floor: float = FLOOR, cap: float = CAP, generation: Set[str] = frozenset()
) -> dict[str, float]:
    """Compute how often each sample of a group is seen in the formal training.

    The weight is the loss of the group divided by the median of all group losses, clipped to [`floor`, `cap`]. For a
    generation group it is at most 1.

    Args:
        generation: Groups that are treated as generation tasks whatever the length of their answers.

    Raises:
        ValueError: If there are no groups, a name is unknown, or 1 is not between `floor` and `cap`.
    """
    if not 0 < floor <= 1 <= cap < float("inf"):
        raise ValueError(f"floor and cap must be 0 < floor <= 1 <= cap, got {floor} and {cap}")
    if not groups:
        raise ValueError("there is no group to weigh")
    if unknown := sorted(generation - groups.keys()):
        raise ValueError(f"--generation {unknown[0]}: no such group; there are {', '.join(groups)}")
    median = statistics.median(group.loss for group in groups.values())
    weights = {}
    for name, group in groups.items():
        ratio = group.loss / median if median > 0 else 1.0
        highest = 1.0 if is_generation(name, group, generation) else cap
        weights[name] = min(max(ratio, floor), highest)
    return weights


def is_generation(name: str, group: Group, named: Set[str] = frozenset()) -> bool:
    """Return True if a group is a generation task, by name or by a mean answer above `GENERATION_TOKENS`."""
    return name in named or (group.answer_tokens is not None and group.answer_tokens > GENERATION_TOKENS)


def subset_counts(sizes: Sequence[int], n_samples: int) -> list[int]:
    """Distribute `n_samples` evenly among groups without giving any group more than its size."""
    counts = [0] * len(sizes)
    left = min(n_samples, sum(sizes))
    while left:
        open_groups = [at for at, size in enumerate(sizes) if counts[at] < size]
        share = max(1, left // len(open_groups))
        for at in open_groups:
            taken = min(share, sizes[at] - counts[at], left)
            counts[at], left = counts[at] + taken, left - taken
    return counts
