"""From the losses of a coarse run to sampling weights (paper, Sec. 3.1.2, "Data sampling pipeline").

Pure arithmetic between the loss log of a coarse post-training and the mixture that the formal one reads: easy groups
down, hard ones up, groups whose answers are generated at length never up.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from fcot_vl.stage import read_rows

FLOOR, CAP = 0.25, 4.0  # ours: the paper gives no thresholds
GENERATION_TOKENS = 64  # ours: mean answer tokens from which a group is a generation task


@dataclass(frozen=True)
class Group:
    """What the coarse run says of one group of records.

    Attributes:
        loss: cross-entropy in nats per answer token, over the last half of the run.
        tokens: answer tokens it is a mean of.
        answer_tokens: mean answer tokens of a record; None where unknown.
    """

    loss: float
    tokens: int
    answer_tokens: float | None = None


def read_groups(log: Path, answer_tokens: Mapping[str, float] | None = None) -> dict[str, Group]:
    """The groups of a loss log with their losses.

    A group's loss is the mean over its answer tokens in the last half of the run's steps: in the first ones every loss
    falls from where the model happened to start, which says little about what is hard to learn. A group that the last
    half did not see is read from the whole run.

    Args:
        log: `losses.jsonl` of a finished or interrupted post-training.
        answer_tokens: mean answer tokens of a record, by group.

    Raises:
        ValueError: the log is missing, or holds no losses by group.
    """
    if not log.is_file():
        raise ValueError(f"{log}: no such file; give the output folder of a post-train run")
    rows = read_rows(log)
    half = rows[len(rows) // 2 :]
    names = sorted({name for row in rows for name in row.get("groups", {})})
    if not names:
        raise ValueError(f"{log}: no losses by group; train anew, older runs did not write them")
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
    """How often each record of a group is to be seen in the formal training.

    Its loss over the median of all groups' losses, between `floor` and `cap`; at most 1 for a generation group.

    Args:
        generation: groups that are generation tasks whatever their length.

    Raises:
        ValueError: no groups, an unknown name, or a floor and a cap that do not hold 1 between them.
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
    """Whether a group's answers are generated at length: named so, or longer than `GENERATION_TOKENS` in the mean."""
    return name in named or (group.answer_tokens is not None and group.answer_tokens > GENERATION_TOKENS)


def subset_counts(sizes: Sequence[int], records: int) -> list[int]:
    """`records` shared out evenly among groups, none given more than it has."""
    counts = [0] * len(sizes)
    left = min(records, sum(sizes))
    while left:
        open_groups = [at for at, size in enumerate(sizes) if counts[at] < size]
        share = max(1, left // len(open_groups))
        for at in open_groups:
            taken = min(share, sizes[at] - counts[at], left)
            counts[at], left = counts[at] + taken, left - taken
    return counts
