"""Learning rates per part and per layer for an optimizer that was created with one rate.

`post_train.py` uses this module. Layer-wise decay follows BEiT (Bao et al. 2022); InternVL's ViT was tuned with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

LAYER = re.compile(r"(.*?\b(?:layers?|blocks)\.)(\d+)\.")


def layer_scales(names: Iterable[str], decay: float) -> dict[str, float]:
    """Return the factor of each parameter's rate: `decay` once for every layer above it in its stack.

    A stack is a ViT or a decoder. Embeddings lie below its first layer; norms and heads lie above its last.

    Args:
        names: Names of parameters, such as `model.language_model.layers.3.mlp.up_proj.weight`.
        decay: Factor from each layer to the one below, above 0 and at most 1.
    """
    names = list(names)
    depth: dict[str, int] = {}
    for name in names:
        if found := LAYER.match(name):
            depth[found[1]] = max(depth.get(found[1], 0), int(found[2]) + 1)
    scales = {}
    for name in names:
        above = 0
        if found := LAYER.match(name):
            above = depth[found[1]] - 1 - int(found[2])
        elif "embed" in name:
            root = name.split("embed")[0]
            above = max((n for stack, n in depth.items() if stack.startswith(root)), default=0)
        scales[name] = decay**above
    return scales


def scale_rates(optimizer: torch.optim.Optimizer, scales: Mapping[int, float]) -> None:
    """Split the optimizer's groups so that each parameter's rate is the rate of its group times its scale.

    Call this function before the first step.

    Args:
        scales: Scale of each parameter by its `id`. Parameters that are not listed have scale 1.
    """
    assert not optimizer.state, "rates are set before the first step"
    before, optimizer.param_groups = optimizer.param_groups, []
    for group in before:
        by_scale: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_scale.setdefault(scales.get(id(parameter), 1.0), []).append(parameter)
        for scale, parameters in by_scale.items():
            new: dict[str, Any] = {**group, "params": parameters, "lr": group["lr"] * scale}
            optimizer.add_param_group(new)
