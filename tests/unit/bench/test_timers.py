"""The memory bandwidth of a device."""

from __future__ import annotations

import itertools

import pytest
import torch

from fcot_vl.bench import timers


def test_the_warm_up_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warm-up copy is the fastest here; of the others, the fastest takes two seconds."""
    lengths = [1.0, 5.0, 2.0, 4.0, 3.0, 6.0]
    moments = itertools.chain.from_iterable((0.0, length) for length in lengths)
    monkeypatch.setattr(timers, "COPIED", 8)
    monkeypatch.setattr(timers.Clock, "now", lambda: next(moments))
    assert timers.memory_rate(torch.device("cpu")) == 2 * 8 / 2.0
