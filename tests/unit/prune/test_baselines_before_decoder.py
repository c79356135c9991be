"""Baselines before the decoder, each against the formulas of its paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from baseline_case import SEED, TOKENS, clearly, first, quick
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from fcot_vl.prune.before_decoder import TokenGroup, shares_of
from fcot_vl.prune.divprune import most_diverse
from fcot_vl.prune.fewer_tiles import tile_limit
from fcot_vl.prune.prumerge import NEIGHBORS, outliers, prune_and_merge
from fcot_vl.prune.selection import TIE, best_first, first_best
from fcot_vl.prune.tome import match, merge_pairs
from fcot_vl.prune.visionzip import split_budget, zip_tokens
from fcot_vl.prune.vispruner import important_and_diverse, without_duplicates


def group_of(seed: int, n: int, channels: int = 6) -> TokenGroup:
    generator = torch.Generator().manual_seed(seed)
    return TokenGroup(
        torch.randn(n, channels, generator=generator),
        torch.rand(n, generator=generator).pow(4),
        torch.randn(n, 5, generator=generator),
    )


def cos(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    return float(a @ b / (a.norm() * b.norm()))


def in_order(numbers: Any, score: Any) -> list[int]:
    """Numbers by score, best first; ties in the order given."""
    groups: list[list[int]] = []
    for i in sorted(numbers, key=score, reverse=True):
        if not groups or clearly(score(groups[-1][-1]) - score(i)):
            groups.append([])
        groups[-1].append(i)
    place = {i: at for at, i in enumerate(numbers)}
    return [i for group in groups for i in sorted(group, key=place.__getitem__)]


@quick
@given(st.integers(1, 500), st.integers(1, 14))
def test_a_rows_budget_is_spread_over_its_tiles(budget: int, n_tiles: int) -> None:
    shares = shares_of(budget, n_tiles)
    assert len(shares) == n_tiles
    assert sum(shares) == budget
    assert max(shares) - min(shares) <= 1


@quick
@given(SEED, TOKENS, st.data())
def test_divprune_is_greedy_max_min(seed: int, n_tokens: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, n_tokens))
    x = group_of(seed, n_tokens).features_NC
    apart = [[1 - cos(a, b) for b in x] for a in x]
    lonely = [min(d for j, d in enumerate(row) if j != i) for i, row in enumerate(apart)]
    chosen = [first(range(n_tokens), lonely.__getitem__)]
    while len(chosen) < n:
        others = [i for i in range(n_tokens) if i not in chosen]
        chosen.append(first(others, lambda i: min(apart[i][j] for j in chosen)))
    assert most_diverse(x, n).tolist() == chosen


@quick
@given(SEED, TOKENS, st.sampled_from([torch.float32, torch.float64]))
def test_rounding_decides_no_tie(seed: int, n_tokens: int, dtype: torch.dtype) -> None:
    """Whatever the processor makes of the last bits, the same tokens are chosen; copies of a token in their order."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.rand(4, n_tokens, generator=generator, dtype=dtype)
    twin = torch.randint(n_tokens, (n_tokens,), generator=generator)
    score = torch.cat([score, score[:, twin]], dim=1)
    gaps = score[:, :n_tokens].sort(dim=1).values.diff(dim=1)
    assume(bool((gaps > 3 * TIE).all()))
    noisy = score + 1e-6 * (torch.rand(score.shape, generator=generator, dtype=dtype) - 0.5)
    assert torch.equal(best_first(noisy), best_first(score))
    assert torch.equal(best_first(score), score.argsort(dim=1, descending=True, stable=True))
    assert torch.equal(first_best(noisy), score.argmax(dim=1))
    assert torch.equal(first_best(noisy[0]), score[0].argmax())


def test_divprune_takes_the_first_of_two_nearest_neighbors() -> None:
    x = group_of(
        4, 4
    ).features_NC  # two of them are each other's nearest, and farther than the others' nearest are
    expected = most_diverse(x.double(), 2).tolist()
    for seed in range(20):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        assert most_diverse(x * (1 + 1e-7 * noise), 2).tolist() == expected


def test_copies_of_a_token_are_chosen_in_their_order() -> None:
    x = group_of(1, 5).features_NC.repeat(4, 1)  # blank tiles, whose tokens differ by rounding only
    x = x * (1 + 1e-7 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))
    assert sorted(most_diverse(x, 5).tolist()) == [0, 1, 2, 3, 4]
    source, target = match(x, 4)
    exact = match(x[:5].double().repeat(4, 1), 4)
    assert (source.tolist(), target.tolist()) == tuple(part.tolist() for part in exact)


@quick
@given(SEED, TOKENS, st.data())
def test_visionzip_keeps_the_dominant_and_merges_the_rest_into_even_targets(
    seed: int, n_tokens: int, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, n_tokens - 1))
    group = group_of(seed, n_tokens)
    n_dominant, n_contextual = split_budget(n)
    left = zip_tokens(group, n)
    assert n_dominant + n_contextual == int(left.kept_N.sum()) == n
    by_attention = sorted(range(n_tokens), key=lambda i: -float(group.attention_N[i]))
    dominant, rest = by_attention[:n_dominant], sorted(by_attention[n_dominant:])
    assert left.kept_N[dominant].all()
    if n_contextual == 0:
        assert left.features_NC is None
        return
    targets = rest[:: max(1, len(rest) // n_contextual)][:n_contextual]
    groups = {t: [t] for t in targets}
    for i in rest:
        if i not in groups:
            groups[first(targets, lambda t, i=i: cos(group.keys_Nd[i], group.keys_Nd[t]))].append(i)
    assert left.features_NC is not None
    assert torch.equal(left.features_NC[dominant], group.features_NC[dominant])
    for target, (own, *taken) in groups.items():
        assert left.kept_N[target]
        mean = group.features_NC[taken].mean(dim=0) if taken else group.features_NC[own]
        torch.testing.assert_close(left.features_NC[target], (group.features_NC[own] + mean) / 2)


def test_visionzip_splits_as_the_paper_does() -> None:
    assert [split_budget(n) for n in (64, 128, 192)] == [(54, 10), (108, 20), (162, 30)]


@quick
@given(SEED, TOKENS, st.data())
def test_vispruner_keeps_an_important_half_and_thins_out_the_rest_as_the_reference_does(
    seed: int, n_tokens: int, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, n_tokens - 1))
    group = group_of(seed, n_tokens)
    kept = important_and_diverse(group, n).kept_N
    order = sorted(range(n_tokens), key=lambda i: -float(group.attention_N[i]))
    important, left = order[: n // 2], order[n // 2 :]
    while len(left) > n - n // 2:
        odd, second = left[::2], left[1::2]
        like = {i: max(cos(group.features_NC[i], group.features_NC[j]) for j in second) for i in odd}
        most_alike = in_order(odd, like.__getitem__)
        left = most_alike[min(8, len(left) - (n - n // 2)) :] + second
    assert kept.nonzero()[:, 0].tolist() == sorted(important + left)


def test_vispruner_takes_copies_out_first() -> None:
    x = torch.eye(6).repeat_interleave(2, dim=0)  # every token twice, side by side
    assert without_duplicates(x, 6).tolist() == [1, 3, 5, 7, 9, 11]


@quick
@given(SEED, st.integers(8, 64), st.data())
def test_prumerge_keeps_outliers_and_spreads_the_rest(seed: int, n_tokens: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, n_tokens - 1))
    group = group_of(seed, n_tokens)
    a = group.attention_N.numpy()
    low, high = np.percentile(a, 25), np.percentile(a, 75)
    limit = high + 1.5 * (high - low)
    far = a > limit
    assume(bool((np.abs(a - limit) > 1e-6).all()))
    assert outliers(group.attention_N).tolist() == far.tolist()
    left = prune_and_merge(group, n)
    assert left.features_NC is not None
    n_whole = max(1, n - 1)  # the last one of the budget stands for all that is dropped
    strongest = [i for i in np.argsort(-a, kind="stable") if far[i]][:n_whole]
    rest = [i for i in range(n_tokens) if i not in strongest]
    m = n_whole - len(strongest)
    kept = [*strongest, *(rest[(2 * i + 1) * len(rest) // (2 * m)] for i in range(m))]
    dropped = [i for i in range(n_tokens) if i not in kept]
    extra = dropped[-1:] if n > 1 else []
    assert sorted(left.kept_N.nonzero()[:, 0].tolist()) == sorted(kept + extra)
    for i in extra:
        share = group.attention_N[dropped, None]
        mean = (group.features_NC[dropped] * share).sum(0) / share.sum()
        torch.testing.assert_close(left.features_NC[i], mean, atol=1e-4, rtol=1e-4)
    n_near = min(n_tokens - 1, max(1, int(NEIGHBORS * n_tokens + 0.5)))
    for i in kept:
        others = [j for j in range(n_tokens) if j != i]
        near = in_order(others, lambda j, i=i: cos(group.keys_Nd[i], group.keys_Nd[j]))[:n_near]
        weight = torch.tensor([1.0, *(float(a[j]) for j in near)])
        mean = (group.features_NC[[i, *near]] * weight[:, None]).sum(0) / weight.sum()
        torch.testing.assert_close(left.features_NC[i], mean, atol=1e-4, rtol=1e-4)


@quick
@given(SEED, TOKENS, st.data())
def test_tome_keeps_the_size_weighted_mean(seed: int, n_tokens: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, n_tokens - 1))
    group = group_of(seed, n_tokens)
    left = merge_pairs(group, n)
    assert left.features_NC is not None
    assert left.size_N is not None
    sizes = left.size_N[left.kept_N]
    assert int(left.kept_N.sum()) == n
    assert float(sizes.sum()) == pytest.approx(n_tokens)
    mean = (left.features_NC[left.kept_N] * sizes[:, None]).sum(0) / n_tokens
    torch.testing.assert_close(mean, group.features_NC.mean(dim=0), atol=1e-5, rtol=1e-4)
    alone = left.kept_N & (left.size_N == 1)
    assert torch.equal(left.features_NC[alone], group.features_NC[alone])


@quick
@given(SEED, TOKENS)
def test_tome_matches_the_most_similar_pairs_of_two_sets(seed: int, n_tokens: int) -> None:
    keys = group_of(seed, n_tokens).keys_Nd
    best = {}
    for i in range(0, n_tokens, 2):
        j = first(range(1, n_tokens, 2), lambda j, i=i: cos(keys[i], keys[j]))
        best[i] = (max(cos(keys[i], keys[j]) for j in range(1, n_tokens, 2)), j)
    n = max(1, len(best) // 2)
    wanted = in_order(list(best), lambda i: best[i][0])[:n]
    source, target = match(keys, n)
    assert dict(zip(source.tolist(), target.tolist(), strict=True)) == {i: best[i][1] for i in wanted}


@pytest.mark.parametrize(("budget", "limit"), [(1000, 6), (448, 6), (447, 4), (320, 4), (100, 1), (1, 1)])
def test_tiles_are_lowered_until_they_fit(budget: int, limit: int) -> None:
    tokens = {6: 448, 5: 448, 4: 320, 3: 256, 2: 192, 1: 64}
    assert tile_limit(tokens.__getitem__, 6, budget) == limit
    with pytest.raises(ValueError, match="at least one"):
        tile_limit(tokens.__getitem__, 6, 0)
