"""The planned order: complete, seeded, with equally many answer tokens in every step."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_vl.train.sampler import BalancedSampler


@settings(max_examples=50, deadline=None)
@given(
    pages=st.lists(st.tuples(st.integers(0, 500), st.integers(1, 900)), min_size=1, max_size=300),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 3),
)
def test_every_page_is_seen_once_in_a_repeatable_order(pages, batch_size, seed, epoch):
    answers, lengths = zip(*pages, strict=True)
    order, again = (BalancedSampler(answers, lengths, batch_size, seed) for _ in range(2))
    order.set_epoch(epoch)
    again.set_epoch(epoch)
    assert sorted(order) == list(range(len(pages)))
    assert list(order) == list(again) == list(order)
    assert len(order) == len(pages)


def test_epochs_and_seeds_differ():
    answers = list(range(100))
    orders = set()
    for seed in range(3):
        order = BalancedSampler(answers, answers, 4, seed)
        for epoch in range(3):
            order.set_epoch(epoch)
            orders.add(tuple(order))
    assert len(orders) == 9


def test_steps_hold_equally_many_answer_tokens_though_pages_differ_a_hundredfold():
    random = np.random.default_rng(0)
    answers = np.clip(random.lognormal(3.7, 1.1, 1600).astype(int), 5, 500)
    lengths = 100 + answers
    for seed in range(3):
        order = np.array(list(BalancedSampler(answers, lengths, 16, seed)))
        steps = answers[order].reshape(-1, 16).sum(axis=1)
        assert steps.max() < 1.15 * steps.min()
        means = lengths[order].reshape(-1, 16).mean(axis=1)
        assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3


def test_pages_computed_at_the_same_time_are_alike_in_length():
    """Neighbours of a step, which several processes compute at the same time."""
    random = np.random.default_rng(0)
    lengths = random.integers(10, 1000, 160)
    order = np.array(list(BalancedSampler(random.integers(1, 50, 160), lengths, 16, seed=0)))
    steps = lengths[order].reshape(-1, 16)
    assert (np.diff(steps, axis=1) >= 0).all()


def test_the_short_batch_comes_last():
    answers = [5] * 9 + [100]
    for seed in range(20):
        order = list(BalancedSampler(answers, answers, 4, seed))
        assert len(order) == 10 and len(order[8:]) == 2
