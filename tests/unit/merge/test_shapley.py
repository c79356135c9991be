"""Shapley values of random games: the four axioms that define them, and the definition over all orders."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_vl.merge.shapley import all_coalitions, coalitions_of, drawn_orders, exact, sampled, weights

Game = dict[frozenset[int], float]
players = st.integers(1, 5)


def game(n: int, seed: int) -> Game:
    rng = random.Random(seed)
    return {coalition: rng.uniform(-1, 1) for coalition in all_coalitions(n)}


def over_all_orders(n: int, worth: Game) -> list[float]:
    """The definition: what a player adds when it joins, averaged over all n! orders."""
    values = [0.0] * n
    for order in permutations(range(n)):
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            values[player] += (worth[before | {player}] - worth[before]) / math.factorial(n)
    return values


def close(one: list[float], two: list[float]) -> bool:
    return one == pytest.approx(two, abs=1e-12)


@given(players, st.integers())
@settings(max_examples=60, deadline=None)
def test_equals_the_mean_over_all_orders(n, seed):
    worth = game(n, seed)
    assert close(exact(n, worth.__getitem__), over_all_orders(n, worth))


@given(players, st.integers())
@settings(max_examples=60, deadline=None)
def test_efficiency(n, seed):
    worth = game(n, seed)
    everyone = worth[frozenset(range(n))] - worth[frozenset()]
    assert sum(exact(n, worth.__getitem__)) == pytest.approx(everyone, abs=1e-12)


@given(st.integers(2, 5), st.integers())
@settings(max_examples=60, deadline=None)
def test_symmetry(n, seed):
    """Two players that add the same to every coalition are worth the same."""
    worth = game(n, seed)
    swapped = {0: 1, 1: 0}

    def even(coalition: frozenset[int]) -> float:
        return worth[coalition] + worth[frozenset(swapped.get(p, p) for p in coalition)]

    values = exact(n, even)
    assert values[0] == pytest.approx(values[1], abs=1e-12)


@given(st.integers(2, 5), st.integers(), st.floats(-1, 1))
@settings(max_examples=60, deadline=None)
def test_dummy(n, seed, own):
    """A player that adds the same amount to every coalition is worth that; one that adds nothing, nothing."""
    worth = game(n, seed)

    def with_dummy(coalition: frozenset[int]) -> float:
        return worth[coalition - {0}] + (own if 0 in coalition else 0)

    assert exact(n, with_dummy)[0] == pytest.approx(own, abs=1e-12)


@given(players, st.integers(), st.integers(), st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_additivity(n, one, two, factor):
    first, second = game(n, one), game(n, two)
    both = exact(n, lambda coalition: first[coalition] + factor * second[coalition])
    parts = zip(exact(n, first.__getitem__), exact(n, second.__getitem__), strict=True)
    assert close(both, [a + factor * b for a, b in parts])


@given(players, st.integers(), st.sampled_from([4, 6, 20]))
@settings(max_examples=40, deadline=None)
def test_every_coalition_is_scored_once_and_samples_sum_to_the_whole(n, seed, count):
    worth, scored_times = game(n, seed), Counter()

    def score(coalition: frozenset[int]) -> float:
        scored_times[coalition] += 1
        return worth[coalition]

    exact(n, score)
    assert set(scored_times) == set(worth) and set(scored_times.values()) == {1}
    scored_times.clear()
    values, errors = sampled(n, score, count, seed)
    assert set(scored_times.values()) == {1} and set(scored_times) == coalitions_of(
        drawn_orders(n, count, seed)
    )
    everyone = worth[frozenset(range(n))] - worth[frozenset()]
    assert sum(values) == pytest.approx(everyone, abs=1e-12)
    assert all(error >= 0 for error in errors)


def test_samples_converge_and_their_error_bars_cover():
    """Over 200 seeds, 95% intervals hold the exact value about 95 times in a hundred, and shrink as the root."""
    n = 6
    worth = game(n, 7)
    true = exact(n, worth.__getitem__)
    inside = total = 0
    widths = {40: 0.0, 640: 0.0}
    for seed in range(200):
        values, errors = sampled(n, worth.__getitem__, 80, seed)
        for value, error, truth in zip(values, errors, true, strict=True):
            inside += abs(value - truth) <= 2.02 * error  # Student's t, 39 degrees of freedom
            total += 1
    assert 0.92 <= inside / total <= 0.98
    for count in widths:
        widths[count] = sum(sampled(n, worth.__getitem__, count, 0)[1])
    assert widths[640] / widths[40] == pytest.approx(0.25, rel=0.4)
    values, errors = sampled(n, worth.__getitem__, 20_000, 0)
    assert values == pytest.approx(true, abs=4 * max(errors)) and max(errors) < 0.01


def test_reversed_orders_are_exact_where_players_meet_in_pairs():
    """Worth of pairs only: the mean of an order and its reverse is the Shapley value, so every error bar is 0."""
    rng = random.Random(0)
    pair = {(i, j): rng.random() for i in range(5) for j in range(i)}

    def score(coalition: frozenset[int]) -> float:
        return sum(value for (i, j), value in pair.items() if i in coalition and j in coalition)

    values, errors = sampled(5, score, 4, 1)
    assert close(values, exact(5, score)) and max(errors) < 1e-12


def test_orders_are_drawn_in_pairs():
    orders = drawn_orders(7, 6, seed=3)
    assert orders == drawn_orders(7, 6, seed=3) != drawn_orders(7, 6, seed=4)
    assert all(
        one == two[::-1] and sorted(one) == list(range(7))
        for one, two in zip(orders[::2], orders[1::2], strict=True)
    )
    for count in (0, 2, 5):
        with pytest.raises(ValueError, match="come in pairs"):
            drawn_orders(7, count, 0)


def test_weights():
    assert weights([3, 1, 0]) == [0.75, 0.25, 0]
    assert weights([2, -5, 2]) == [0.5, 0, 0.5]
    for values in ([0.0, 0.0], [-1.0, -0.1]):
        assert weights(values) is None
