"""PyramidDrop and SparseVLM against the formulas of their papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from baseline_case import SEED, TOKENS, quick
from hypothesis import given
from hypothesis import strategies as st
from prune_case import (
    IMAGE,
)
from torch import Tensor

from fcot_vl.prune.budget import shares_by_layer
from fcot_vl.prune.pyramiddrop import pyramid_drops
from fcot_vl.prune.selection import PrefillTokens
from fcot_vl.prune.sparsevlm import Raters, cluster, keep_and_recycle, recycled, sparse_drops


def test_pyramiddrop_drops_as_the_paper_does() -> None:
    assert pyramid_drops(0.5, 32) == ((8, 0.5), (16, 0.25), (24, 0.125))
    assert sum(shares_by_layer(pyramid_drops(0.5, 32), 32)) / 32 == pytest.approx(0.46875)


@pytest.mark.parametrize("n_layers", [4, 24, 32])
@pytest.mark.parametrize("keep", [0.3, 1 / 3, 0.5, 0.9, 1.0])
def test_sparsevlm_keeps_its_share_on_average(keep: float, n_layers: int) -> None:
    drops = sparse_drops(keep, n_layers)
    assert sum(shares_by_layer(drops, n_layers)) / n_layers == pytest.approx(keep)
    shares = [share for _, share in drops]
    assert shares == sorted(shares, reverse=True)


def test_sparsevlm_at_a_third_is_close_to_the_papers_table() -> None:
    drops = sparse_drops(192 / 576, 32)
    assert [layer for layer, _ in drops] == [3, 7, 16]  # the layers above 2, 6 and 15, whose attention ranks
    for (_, share), paper in zip(drops, (300, 200, 110), strict=True):
        assert abs(share * 576 - paper) < 40


@pytest.mark.parametrize("kept", [300, 200, 110, 1])
def test_sparsevlm_recycles_as_many_as_the_reference(kept: int) -> None:
    pool = int(0.3 * (576 - kept)) + 1  # of those that the ranking drops
    clusters = pool // 10 + 1
    assert recycled(576, kept + clusters) == (pool, clusters)  # ours counts the clusters as kept


def prompt_of(seed: int, n_image: int, n_after: int) -> PrefillTokens:
    ids = torch.tensor([[8, 9] + [IMAGE] * n_image + [10] * n_after])
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(1, ids.shape[1], 6, generator=generator)
    return PrefillTokens(ids == IMAGE, torch.ones_like(ids, dtype=torch.bool), ids, None, hidden)


@quick
@given(SEED, TOKENS, st.integers(1, 9))
def test_sparsevlms_raters_are_the_words_most_like_the_picture(seed: int, n_image: int, n_after: int) -> None:
    prompt = prompt_of(seed, n_image, n_after)
    assert prompt.hidden_BLC is not None
    raters = Raters()
    raters.record_prompt(torch.nn.Identity(), (), {"inputs_embeds": prompt.hidden_BLC})
    text, seen = prompt.hidden_BLC[0, -n_after:], prompt.hidden_BLC[0, 2 : 2 + n_image]
    shares = np.zeros(n_after)
    for v in seen:
        weights = np.array([math.exp(float(v @ w)) for w in text])
        shares += weights / weights.sum() / n_image
    found = raters.among(prompt)[0]
    assert not found[: 2 + n_image].any()
    clear = np.abs(shares - shares.mean()) > 1e-5
    assert (found[-n_after:].numpy() == (shares > shares.mean()))[clear].all()
    assert found.any()
    fewer = prompt_of(seed + 1, 1, n_after)  # a later drop, of which the states say something else
    assert raters.among(fewer)[0, -n_after:].equal(found[-n_after:])


@quick
@given(SEED, st.integers(8, 120), st.data())
def test_sparsevlm_recycles_within_the_budget(seed: int, n_image: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, n_image))
    prompt = prompt_of(seed, n_image, 3)
    assert prompt.hidden_BLC is not None
    score = torch.rand(1, prompt.image_BL.shape[1], generator=torch.Generator().manual_seed(seed))
    choice = keep_and_recycle(prompt, score, [n])
    n_pool, n_clusters = recycled(n_image, n)
    assert int(choice.kept_BL.sum()) == n
    order = (score[0].masked_fill(~prompt.image_BL[0], -1)).argsort(descending=True)
    best, pool = order[: n - n_clusters], order[n - n_clusters :][:n_pool]
    assert choice.kept_BL[0, best].all()
    assert torch.equal(choice.hidden_BLC[0, best], prompt.hidden_BLC[0, best])
    if n_clusters:
        centers, means = cluster(prompt.hidden_BLC[0, pool.sort().values], n_clusters)
        at = pool.sort().values[centers]
        assert choice.kept_BL[0, at].all()
        torch.testing.assert_close(choice.hidden_BLC[0, at], means)


def density_peaks(x: Tensor, n: int) -> list[int]:
    apart = [[float((a - b).norm()) / x.shape[1] ** 0.5 for b in x] for a in x]
    density = [math.exp(-sum(d * d for d in sorted(row)[:n]) / n) for row in apart]
    score = []
    for i, row in enumerate(apart):
        denser = [d for j, d in enumerate(row) if density[j] > density[i]]
        score.append(density[i] * (min(denser) if denser else max(map(max, apart))))
    return sorted(range(len(x)), key=lambda i: -score[i])[:n]


def test_density_peaks_find_separate_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    x = groups.repeat_interleave(8, dim=0) + torch.randn(24, 2, generator=generator)
    centers, means = cluster(x, 3)
    assert sorted(centers.tolist()) == sorted(density_peaks(x, 3))
    assert sorted(int(c) // 8 for c in centers) == [0, 1, 2]
    for centre, mean in zip(centers.tolist(), means, strict=True):
        torch.testing.assert_close(mean, x[centre // 8 * 8 : centre // 8 * 8 + 8].mean(dim=0))
