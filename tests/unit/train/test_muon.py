"""Muon: the orthogonalised update, AdamW for the rest, and a state that resumes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fcot_vl.train.muon import Muon, is_hidden_matrix, orthogonalise


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8)])
def test_orthogonalised_singular_values_are_near_one(shape: tuple[int, int]) -> None:
    values = torch.linalg.svdvals(
        orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    )
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_only_hidden_matrices_take_muon() -> None:
    matrix, vector = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    assert is_hidden_matrix("layers.0.mlp.up_proj.weight", matrix)
    assert is_hidden_matrix("compressor.conv.weight", nn.Parameter(torch.zeros(4, 4, 2, 2)))
    assert not is_hidden_matrix("compressor.neighbours.weight", nn.Parameter(torch.zeros(4, 1, 3, 3)))
    assert not is_hidden_matrix("layers.0.mlp.up_proj.bias", vector)
    assert not is_hidden_matrix("embed_tokens.weight", matrix)
    assert not is_hidden_matrix("lm_head.weight", matrix)


def test_the_rest_is_adamw() -> None:
    ours, theirs = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    muon = Muon([("bias", ours)], adamw_lr=0.1)
    adamw = torch.optim.AdamW([theirs], 0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    for step in range(5):
        for parameter in (ours, theirs):
            parameter.grad = torch.arange(5.0) - step
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)


def test_learns_and_resumes_with_the_same_weights() -> None:
    torch.manual_seed(0)
    x, target = torch.randn(32, 8), torch.randn(8, 4)

    def run(model: nn.Module, optimizer: Muon, steps: int) -> float:
        for _ in range(steps):
            loss = (model(x) - x @ target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    model = nn.Linear(8, 4)
    optimizer = Muon(model.named_parameters(), lr=0.1)
    first = run(model, optimizer, 1)
    run(model, optimizer, 9)
    again = copy.deepcopy(model)
    resumed = Muon(again.named_parameters(), lr=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    last = run(model, optimizer, 60)
    run(again, resumed, 60)
    assert last < first / 5
    assert torch.equal(model.weight, again.weight)
