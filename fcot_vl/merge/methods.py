"""Merging methods: one small function per method, in float32, applied to one piece of a tensor from every checkpoint.

Every method except TIES works value by value, so that a tensor can be merged in pieces. TIES first needs one number
from the whole tensor, `trim_threshold`. theta_b is the base, theta_i a checkpoint, and tau_i = theta_i - theta_b its
task vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

METHODS = ("average", "weighted", "task-arithmetic", "shapley", "ties", "dare")
NEEDS_BASE = ("task-arithmetic", "shapley", "ties", "dare")
Combine = Callable[[Sequence[Tensor]], Tensor]  # pieces (the base first, if any) -> merged piece


@dataclass(frozen=True)
class Rule:
    """A merging method with its parameters.

    Attributes:
        method: One of `METHODS`.
        weights: One weight per checkpoint.
        scale: Lambda of task arithmetic, TIES and DARE.
        density: Share of the values of a task vector that TIES and DARE keep.
        seed: Random seed for the values that DARE drops.
    """

    method: str
    weights: tuple[float, ...]
    scale: float = 1.0
    density: float = 1.0
    seed: int = 0

    def combiner(self, name: str, delta: Callable[[int], Tensor]) -> Combine:
        """Return the method for one tensor; its pieces must be passed in order.

        Args:
            name: Name of the tensor.
            delta: Function that returns task vector i of the whole tensor, flat, float32, in its own memory.
        """
        if self.method in ("average", "weighted"):
            return lambda pieces: linear(pieces, self.weights)
        if self.method == "ties":
            limits = [trim_threshold(delta(i), self.density) for i in range(len(self.weights))]
            return lambda p: ties(p[0], p[1:], self.weights, self.scale, limits)
        if self.method == "dare":
            draws = [generator(self.seed, name, i) for i in range(len(self.weights))]
            return lambda p: dare(p[0], p[1:], self.weights, self.scale, self.density, draws)
        return lambda p: task_arithmetic(p[0], p[1:], self.weights, self.scale)


def linear(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Compute sum w_i theta_i / sum w_i.

    With equal weights, this is the average of a model soup (Wortsman et al. 2022, 2203.05482).
    """
    total = sum(weights)
    merged = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        merged.add_(tensor, alpha=weight / total)
    return merged


def task_arithmetic(
    base: Tensor, tensors: Sequence[Tensor], weights: Sequence[float], scale: float = 1.0
) -> Tensor:
    """Compute theta_b + scale * sum w_i tau_i.

    With weights 1, this is Ilharco et al. 2023 (2212.04089, Sec. 2): the sum of the task vectors, not their mean. With
    scale 1 and weights that sum to 1, it is Eq. 4 of FCoT-VL.
    """
    merged = base.clone()
    for tensor, weight in zip(tensors, weights, strict=True):
        merged.add_(tensor - base, alpha=scale * weight)
    return merged


def ties(
    base: Tensor,
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    scale: float,
    thresholds: Sequence[float],
) -> Tensor:
    """Trim, elect sign and merge (Yadav et al. 2023, 2306.01708, Algorithm 1), tensor by tensor.

    Values of tau_i below `thresholds[i]` are dropped. For every value, the sign with the larger total weight is
    elected. The weighted mean of the values with that sign is added with `scale`. The paper trims a task vector as a
    whole. This implementation trims each of its tensors, as mergekit does, because a whole task vector would not fit in
    memory.
    """
    trimmed = []
    for tensor, threshold in zip(tensors, thresholds, strict=True):
        delta = tensor - base
        trimmed.append(delta.mul_(delta.abs() >= threshold))
    elected = torch.zeros_like(base)
    for delta, weight in zip(trimmed, weights, strict=True):
        elected.add_(delta, alpha=weight)
    positive = elected >= 0
    mixed, count = torch.zeros_like(base), torch.zeros_like(base)
    for delta, weight in zip(trimmed, weights, strict=True):
        agrees = (delta != 0) & ((delta > 0) == positive)
        mixed.add_(delta.mul_(agrees), alpha=weight)
        count.add_(agrees, alpha=weight)
    return base + mixed.div_(count.masked_fill_(count == 0, 1)).mul_(scale)


def trim_threshold(delta: Tensor, density: float) -> float:
    """Return the smallest magnitude among the `density` largest values of a tensor (at least one value).

    `delta` is overwritten.
    """
    if not delta.numel():
        return 0.0
    kept = max(1, int(density * delta.numel()))
    magnitudes = delta.abs_().numpy()
    magnitudes.partition(len(magnitudes) - kept)  # in place: no second tensor
    return float(magnitudes[len(magnitudes) - kept])


def dare(
    base: Tensor,
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    scale: float,
    density: float,
    draws: Sequence[torch.Generator],
) -> Tensor:
    """Drop and rescale (Yu et al. 2023, 2311.03099, Eq. 2), then apply task arithmetic.

    Every value of tau_i is kept with probability `density` and then divided by it, so that its mean is unchanged.
    """
    merged = base.clone()
    for tensor, weight, draw in zip(tensors, weights, draws, strict=True):
        stays = torch.rand(base.shape, generator=draw) < density
        merged.add_((tensor - base).mul_(stays), alpha=scale * weight / density)
    return merged


def generator(seed: int, name: str, index: int) -> torch.Generator:
    """Return the random generator of DARE for one tensor of one checkpoint; it depends only on the three arguments."""
    digest = hashlib.sha256(f"{seed}/{name}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int(np.frombuffer(digest[:8], np.uint64)[0] >> np.uint64(1)))
