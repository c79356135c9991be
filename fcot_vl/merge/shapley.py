"""Shapley values: the contribution of each of n players to a score, averaged over every order of joining.

Source: Shapley 1953; for the weights of a merge, FCoT-VL (Sec. 3.3). The score is any function of a coalition; here it
is the score of the model merged from the coalition. Every coalition is scored once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import combinations

Score = Callable[[frozenset[int]], float]


def exact(n: int, score: Score) -> list[float]:
    """Compute the Shapley value of each of n players over all 2^n coalitions.

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! * (v(S + i) - v(S)).
    """
    worth = {coalition: score(coalition) for coalition in all_coalitions(n)}
    values = []
    for player in range(n):
        without = [coalition for coalition in worth if player not in coalition]
        shares = [(worth[s | {player}] - worth[s]) / math.comb(n - 1, len(s)) for s in without]
        values.append(math.fsum(shares) / n)
    return values


def sampled(n: int, score: Score, permutations: int, seed: int) -> tuple[list[float], list[float]]:
    """Estimate the Shapley values and their standard errors from `permutations` orders of joining.

    This is the antithetic version of Castro et al. 2009 ("ApproShapley"): every sampled order is followed by its
    reverse (Mitchell et al. 2022, 2104.12199, Sec. 4.1), so that pairs are independent and their mean varies less. The
    estimates always sum to v(all) - v(none). The standard error is that of the mean over pairs.

    Raises:
        ValueError: If `permutations` is below four or odd.
    """
    orders = drawn_orders(n, permutations, seed)
    known: dict[frozenset[int], float] = {}

    def worth(coalition: frozenset[int]) -> float:
        if coalition not in known:
            known[coalition] = score(coalition)
        return known[coalition]

    added: list[list[float]] = [[] for _ in range(n)]  # contribution of each player in each order
    for order in orders:
        joined: frozenset[int] = frozenset()
        for player in order:
            more = joined | {player}
            added[player].append(worth(more) - worth(joined))
            joined = more
    values, errors = [], []
    for one in added:
        pairs = [(a + b) / 2 for a, b in zip(one[::2], one[1::2], strict=True)]
        mean = math.fsum(pairs) / len(pairs)
        variance = math.fsum((pair - mean) ** 2 for pair in pairs) / (len(pairs) - 1)
        values.append(mean)
        errors.append(math.sqrt(variance / len(pairs)))
    return values, errors


def all_coalitions(n: int) -> list[frozenset[int]]:
    """Return all 2^n coalitions, smallest first."""
    return [frozenset(members) for size in range(n + 1) for members in combinations(range(n), size)]


def drawn_orders(n: int, permutations: int, seed: int) -> list[list[int]]:
    """Sample the orders that `sampled` uses: each sampled order, then its reverse.

    Raises:
        ValueError: If `permutations` is below four or odd.
    """
    if permutations < 4 or permutations % 2:
        raise ValueError(
            f"--permutations must be an even number of at least 4, because orders come in pairs; got {permutations}"
        )
    rng = random.Random(seed)
    orders = []
    for _ in range(permutations // 2):
        order = rng.sample(range(n), n)
        orders += [order, order[::-1]]
    return orders


def coalitions_of(orders: Sequence[Sequence[int]]) -> set[frozenset[int]]:
    """Return the coalitions that must be scored for these orders."""
    return {frozenset(order[:size]) for order in orders for size in range(len(order) + 1)}


def weights(values: Sequence[float]) -> list[float] | None:
    """Set negative values to 0 and divide the rest by their sum; None if no value is above zero."""
    positive = [max(0.0, value) for value in values]
    if not any(positive):
        return None
    total = math.fsum(positive)
    return [value / total for value in positive]
