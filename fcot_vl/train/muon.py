"""Muon in float32 for hidden matrices and AdamW for all other weights, in the one optimizer that `Trainer` expects.

`torch.optim.Muon` accepts only matrices and orthogonalises in bfloat16. On CPUs without bfloat16 units this is several
times slower than float32, and the embedded model is trained on such CPUs. Source: Jordan et al. 2024, "Muon: an
optimizer for hidden layers in neural networks".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315  # quintic of the source: steep at zero, singular values end near one


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Approximate the semi-orthogonal matrix nearest to `matrix` `[m, n]`; singular values end in about 0.7..1.2."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.T if tall else x


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Return True if Muon applies to this weight: a matrix (or kernel) that is neither an embedding nor the head.

    A depthwise kernel, `[channels, 1, ...]`, mixes no channels, so there is nothing to orthogonalise.
    """
    depthwise = parameter.ndim > 2 and parameter.shape[1] == 1
    named = any(part in name for part in ("embed", "lm_head", "head.", "token", "queries"))
    return parameter.ndim >= 2 and not depthwise and not named


class Muon(torch.optim.Optimizer):
    """Optimizer that applies Muon to hidden matrices and AdamW to all other weights.

    Args:
        named_parameters: Names and parameters to train.
        lr: Learning rate of the matrices. An update has singular values of about 1, scaled by sqrt(rows / columns) if
            the matrix is tall.
        adamw_lr: Learning rate of embeddings, head, norms and biases.
        momentum: Nesterov momentum of Muon.
        weight_decay: Decoupled weight decay of the matrices.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        lr: float = 0.02,
        adamw_lr: float = 2e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        named = list(named_parameters)
        matrices = [p for n, p in named if is_hidden_matrix(n, p)]
        rest = [p for n, p in named if not is_hidden_matrix(n, p)]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "lr": lr, "muon": True, "momentum": momentum, "weight_decay": weight_decay},
            {
                "params": rest,
                "lr": adamw_lr,
                "muon": False,
                "betas": (0.9, 0.95),
                "eps": 1e-8,
                "weight_decay": 0.0,
            },
        ]
        super().__init__([g for g in groups if g["params"]], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._muon if group["muon"] else self._adamw
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, parameter.grad, self.state[parameter], group)
        return loss

    @staticmethod
    def _muon(parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(grad, 1 - group["momentum"])
        direction = grad.lerp(state["momentum"], group["momentum"]).flatten(1)
        scale = max(1.0, direction.shape[0] / direction.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(orthogonalise(direction).view_as(parameter), alpha=-group["lr"] * scale)

    @staticmethod
    def _adamw(parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(grad, 1 - first)
        state["square"].lerp_(grad.square(), 1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        root = (state["square"] / (1 - second ** state["step"])).sqrt().add_(group["eps"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(mean, root, value=-group["lr"])
