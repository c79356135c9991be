"""The planned order: complete, seeded, grouped by length."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_vl.train.sampler import LengthGroupedSampler


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=300),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 3),
)
def test_every_page_is_seen_once_in_a_repeatable_order(lengths, batch_size, seed, epoch):
    order, again = (LengthGroupedSampler(lengths, batch_size, seed) for _ in range(2))
    order.set_epoch(epoch)
    again.set_epoch(epoch)
    assert sorted(order) == list(range(len(lengths)))
    assert list(order) == list(again) == list(order)
    assert len(order) == len(lengths)


def test_epochs_and_seeds_differ():
    lengths = list(range(100))
    orders = set()
    for seed in range(3):
        order = LengthGroupedSampler(lengths, 4, seed)
        for epoch in range(3):
            order.set_epoch(epoch)
            orders.add(tuple(order))
    assert len(orders) == 9


def test_batches_hold_pages_of_similar_length_and_come_in_random_order():
    lengths = np.random.default_rng(0).integers(10, 1000, 1000)
    order = np.array(list(LengthGroupedSampler(lengths, 8, seed=0)))
    batches = lengths[order].reshape(-1, 8)
    padding = 1 - lengths.sum() / (batches.max(axis=1) * 8).sum()
    assert padding < 0.05
    means = batches.mean(axis=1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3


def test_the_short_batch_comes_last():
    lengths = [5] * 9 + [100]
    for seed in range(20):
        order = list(LengthGroupedSampler(lengths, 4, seed))
        assert len(order) == 10 and len(order[8:]) == 2
