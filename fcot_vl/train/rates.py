"""Learning rates by part and by layer, put into an optimizer that was made with one rate.

`post_train.py` calls it. Layer-wise decay as in BEiT (Bao et al. 2022), which InternVL's ViT was tuned with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

LAYER = re.compile(r"(.*?\b(?:layers?|blocks)\.)(\d+)\.")


def layer_scales(names: Iterable[str], decay: float) -> dict[str, float]:
    """What each parameter's rate is multiplied by: `decay` once for every layer above it in its stack.

    A stack is a ViT or a decoder. Embeddings lie below its first layer; norms and heads lie above its last.

    Args:
        names: parameters, such as `model.language_model.layers.3.mlp.up_proj.weight`.
        decay: above 0, at most 1.
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
    """Split the optimizer's groups so that each parameter's rate is its group's times its scale.

    Call it before the first step.

    Args:
        scales: by `id` of the parameter; 1 where there is none.
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
