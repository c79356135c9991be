"""Attention from single tokens of a prompt to the others in one decoder layer.

Used by the methods of `fcot_vl.prune` that rank visual tokens by the attention of the decoder. Only the rows of the
rating tokens are multiplied out, from the query and key projections that the layer computes anyway; attention itself
stays on sdpa.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class DecoderAttentionProbe:
    """Record the projections and positions of one decoder layer in prefill.

    `project_ahead` computes the projections before the layer runs.

    Raises:
        ValueError: If the layer has neither separate nor fused (Phi-3) query and key projections.
    """

    def __init__(self, layer: Any) -> None:
        self.layer, self.module = layer, layer.self_attn
        self.fused = hasattr(self.module, "qkv_proj")
        if not self.fused and not (hasattr(self.module, "q_proj") and hasattr(self.module, "k_proj")):
            raise ValueError(
                "ranking by attention needs a decoder with q_proj and k_proj, or qkv_proj (such as "
                f"Llama or Phi-3); this one has {type(self.module).__name__}."
            )
        self.position_embeddings: tuple[Tensor, Tensor] | None = None
        self.query_BLD: Tensor | None = None
        self.key_BLD: Tensor | None = None

    def hooks(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Register the hooks, after those of `hooks.py`, so that they see the shortened positions."""
        position_hook = self.layer.register_forward_pre_hook(self.record_positions, with_kwargs=True)
        if self.fused:
            return [position_hook, self.module.qkv_proj.register_forward_hook(self.record_qkv)]
        return [
            position_hook,
            self.module.q_proj.register_forward_hook(self.record_query),
            self.module.k_proj.register_forward_hook(self.record_key),
        ]

    def position_hooks(self, below: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        """Register the hook that `project_ahead` needs.

        It reads the positions of the layer below, where nothing has been dropped yet.
        """
        return [below.register_forward_pre_hook(self.record_positions, with_kwargs=True)]

    def project_ahead(self, hidden_BLC: Tensor) -> None:
        """Compute and record the query and key of the layer for its upcoming input."""
        normed_BLC = self.layer.input_layernorm(hidden_BLC)
        if self.fused:
            self.record_qkv(self.module, (), self.module.qkv_proj(normed_BLC))
        else:
            self.record_query(self.module, (), self.module.q_proj(normed_BLC))
            self.record_key(self.module, (), self.module.k_proj(normed_BLC))

    def record_positions(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.position_embeddings = kwargs["position_embeddings"]

    def record_query(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.query_BLD = output if output.shape[1] > 1 else None

    def record_key(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.key_BLD = output if output.shape[1] > 1 else None

    def record_qkv(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        config, width = self.module.config, self.module.head_dim
        sizes = [width * config.num_attention_heads, *[width * config.num_key_value_heads] * 2]
        query_BLD, key_BLD, _ = output.split(sizes, dim=-1)
        self.record_query(module, args, query_BLD)
        self.record_key(module, args, key_BLD)

    def last_row(self, valid_BL: Tensor) -> Tensor:
        """Return the attention of every row's last valid token over the row, mean over heads, float32 [B, L]."""
        last_B = valid_BL.shape[1] - 1 - valid_BL.flip(1).to(torch.uint8).argmax(dim=1)
        rater_BL = torch.nn.functional.one_hot(last_B, valid_BL.shape[1]).bool()
        return self.rows(valid_BL, rater_BL)

    def rows(self, valid_BL: Tensor, rater_BL: Tensor) -> Tensor:
        """Return the attention of every row's raters over the row, mean over heads and raters, float32 [B, L]."""
        assert self.query_BLD is not None
        assert self.key_BLD is not None
        assert self.position_embeddings is not None
        cos_BLd, sin_BLd = (part.expand(len(valid_BL), -1, -1).float() for part in self.position_embeddings)
        places = torch.arange(valid_BL.shape[1], device=valid_BL.device)
        scores = []
        for row, rater_L in enumerate(rater_BL):
            cos_Ld, sin_Ld = cos_BLd[row], sin_BLd[row]
            query_HRd = self._heads(self.query_BLD[row, rater_L], "q_norm")
            query_HRd = rotate(query_HRd, cos_Ld[rater_L], sin_Ld[rater_L])
            key_GLd = rotate(self._heads(self.key_BLD[row], "k_norm"), cos_Ld, sin_Ld)
            query_GgRd = query_HRd.unflatten(0, (len(key_GLd), -1))  # heads of one group share a key
            score_GgRL = query_GgRd @ key_GLd[:, None].transpose(2, 3) * self.module.scaling
            seen_RL = valid_BL[row] & (places <= places[rater_L, None])
            scores.append(score_GgRL.masked_fill(~seen_RL, -torch.inf).softmax(dim=-1).mean(dim=(0, 1, 2)))
        self.query_BLD = self.key_BLD = self.position_embeddings = None
        return torch.stack(scores)

    def _heads(self, x_LD: Tensor, norm: str) -> Tensor:
        x_LHd = x_LD.unflatten(-1, (-1, self.module.head_dim))
        if hasattr(self.module, norm):  # Qwen3
            x_LHd = getattr(self.module, norm)(x_LHd)
        return x_LHd.transpose(0, 1).float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotary embedding in the half-split layout of Llama and Qwen2 to the first channels.

    The number of rotated channels is that of `cos`, which may be smaller than that of `x` (Phi-3).
    """
    x, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([x * cos + torch.cat([-second, first], dim=-1) * sin, rest], dim=-1)
