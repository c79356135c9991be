"""Stochastic depth in InternVL's ViT, which its port to transformers leaves out.

While a layer trains, both of its residual branches are dropped per tile (Huang et al. 2016). As in the original
InternVL code, the rate grows from 0 in the first layer to `rate` in the last. The paper trains with 0.1 (Table 6).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def add_drop_path(vision: nn.Module, rate: float) -> list[Any]:
    """Add drop path to an InternVL ViT.

    A layer drops only in training mode; in evaluation mode the output of the ViT is unchanged, bit for bit. Random
    numbers come from the global state of torch.

    Args:
        vision: Vision tower. Its layers have `attention`, `mlp` and a scale after each, so that dropping the output of
            a branch equals dropping the branch.
        rate: Drop rate of the last layer, in [0, 1).

    Returns:
        Handles of the hooks; `remove()` on each removes the hook.

    Raises:
        ValueError: If the ViT is not InternVL's, or the rate is out of range.
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
    """Set a random share of the tiles of `[tiles, tokens, width]` to 0 and scale the others to preserve the mean."""
    kept = torch.empty(states.shape[0], 1, 1, dtype=states.dtype, device=states.device).bernoulli_(1 - rate)
    return states * kept / (1 - rate)


__all__ = ["add_drop_path"]
