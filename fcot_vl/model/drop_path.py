"""Stochastic depth in InternVL's ViT, which transformers' port of it leaves out.

Both residual branches of a layer are dropped per tile while the layer trains (Huang et al. 2016), at a rate that grows
from 0 in the first layer to `rate` in the last, as in the original InternVL code. The paper trains with 0.1 (Table 6).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def add_drop_path(vision: nn.Module, rate: float) -> list[Any]:
    """Put drop path into an InternVL ViT.

    A layer drops only in training mode; in evaluation mode the ViT is as before, bit for bit. Random numbers come from
    torch's global state.

    Args:
        vision: the vision tower; its layers have `attention`, `mlp` and a scale behind each, which keeps dropping
            either branch's output equal to dropping the branch.
        rate: of the last layer, in [0, 1).

    Returns:
        The hooks' handles; `remove()` takes each out again.

    Raises:
        ValueError: another ViT, or a rate out of range.
    """
    layers = getattr(getattr(vision, "encoder", None), "layer", None)
    if layers is None or not all(hasattr(layer, "lambda_1") for layer in layers):
        raise ValueError("drop_path is for InternVL's ViT; leave it at 0 for other families")
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path must be at least 0 and below 1, got {rate}")
    handles = []
    for layer, share in zip(layers, torch.linspace(0, rate, len(layers)).tolist(), strict=True):
        for branch in (layer.attention, layer.mlp):
            handles.append(branch.register_forward_hook(_dropping(layer, share)))
    return handles


def _dropping(layer: nn.Module, rate: float) -> Any:
    def hook(branch: nn.Module, inputs: Any, output: Any) -> Any:
        if not layer.training or rate == 0.0:
            return output
        if isinstance(output, tuple):
            return (_drop(output[0], rate), *output[1:])
        return _drop(output, rate)

    return hook


def _drop(states: Tensor, rate: float) -> Tensor:
    """`[tiles, tokens, width]` with a share of the tiles at 0 and the others scaled to keep the mean."""
    kept = torch.empty(states.shape[0], 1, 1, dtype=states.dtype, device=states.device).bernoulli_(1 - rate)
    return states * kept / (1 - rate)


__all__ = ["add_drop_path"]
