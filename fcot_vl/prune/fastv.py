"""FastV: visual tokens that the last prompt token hardly looks at are dropped after a few decoder layers.

One of the training-free peers of `fcot_vl.prune`. The attention of the prompt's last token in layer `layer -
1`, averaged over heads, ranks the visual tokens of a row across all its tiles; from layer `layer` on only the
best `keep` share stays, chosen once in prefill.

The reference recomputes full attention maps and has no working KV cache on its fast path. Here only one query
row is multiplied out, from the query and key projections that the layer computes anyway, and attention itself
stays on sdpa.

Source: Chen et al. 2024, "An Image is Worth 1/2 Tokens After Layer 2" (K = `layer`, R = 1 - `keep`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fcot_vl.prune.engine import Prompt, PruneHandle, decoder_of, install, keep_for_layer_mean, keep_top


def apply_fastv(model: nn.Module, keep: float, layer: int = 2) -> PruneHandle:
    """Prune `model` with FastV until the returned handle is removed.

    keep: share of visual tokens that stay, (0, 1]. layer: first decoder layer without the others, at least 1.
    Raises ValueError for values out of range or a decoder without separate query and key projections.
    """
    if layer < 1:
        raise ValueError(f"FastV ranks by the layer below, so layer must be at least 1, got {layer}.")
    decoder = decoder_of(model)
    n_layers = len(decoder.layers)
    if layer >= n_layers:
        raise ValueError(f"layer must lie in 1..{n_layers - 1} of this decoder, got {layer}.")
    watched = decoder.layers[layer - 1]
    attention = watched.self_attn
    fused = hasattr(attention, "qkv_proj")  # Phi-3
    if not fused and not (hasattr(attention, "q_proj") and hasattr(attention, "k_proj")):
        raise ValueError(
            "FastV here needs a decoder with q_proj and k_proj, or qkv_proj (Llama and its kin)."
        )
    watch = _LastRow(attention)

    def select(prompt: Prompt) -> Tensor:
        return keep_top(prompt, watch.attention(prompt.valid_BL), keep)

    handle = PruneHandle("fastv", keep, layer, n_layers)
    install(model, handle, select)
    handle.hooks.append(watched.register_forward_pre_hook(watch.see_positions, with_kwargs=True))
    if fused:
        handle.hooks.append(attention.qkv_proj.register_forward_hook(watch.see_all))
    else:
        handle.hooks += [
            attention.q_proj.register_forward_hook(watch.see_query),
            attention.k_proj.register_forward_hook(watch.see_key),
        ]
    return handle


def fastv_keep_for_layer_mean(mean: float, layer: int, n_layers: int) -> float:
    """The `keep` at which FastV works on `mean` of the visual tokens averaged over the layers.

    This is the budget at which it is compared with a compressed model, whose share holds at every layer.
    Raises ValueError if the layers below `layer` alone cost that much or more.
    """
    return keep_for_layer_mean(mean, layer, n_layers)


class _LastRow:
    """Catches one layer's projections and positions, and multiplies out the last prompt token's attention."""

    def __init__(self, attention: Any) -> None:
        self.module = attention
        self.position_embeddings: tuple[Tensor, Tensor] | None = None
        self.query_BLD: Tensor | None = None
        self.key_BLD: Tensor | None = None

    def see_positions(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.position_embeddings = kwargs["position_embeddings"]

    def see_query(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.query_BLD = output if output.shape[1] > 1 else None

    def see_key(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.key_BLD = output if output.shape[1] > 1 else None

    def see_all(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        config, width = self.module.config, self.module.head_dim
        sizes = [width * config.num_attention_heads, *[width * config.num_key_value_heads] * 2]
        query_BLD, key_BLD, _ = output.split(sizes, dim=-1)
        self.see_query(module, args, query_BLD)
        self.see_key(module, args, key_BLD)

    def attention(self, valid_BL: Tensor) -> Tensor:
        """Attention of every row's last valid token over the row, mean over heads, float32 [B, L]."""
        assert self.query_BLD is not None
        assert self.key_BLD is not None
        assert self.position_embeddings is not None
        n_rows, n_tokens = valid_BL.shape
        rows = torch.arange(n_rows, device=valid_BL.device)
        last_B = n_tokens - 1 - valid_BL.flip(1).to(torch.uint8).argmax(dim=1)
        cos_BLd, sin_BLd = (part.expand(n_rows, -1, -1).float() for part in self.position_embeddings)
        head_dim = self.module.head_dim
        query_BHd = self._heads(self.query_BLD[rows, last_B][:, None], "q_norm")[:, :, 0]
        key_BGLd = self._heads(self.key_BLD, "k_norm")
        self.query_BLD = self.key_BLD = self.position_embeddings = None
        query_BHd = _rotate(query_BHd, cos_BLd[rows, last_B][:, None], sin_BLd[rows, last_B][:, None])
        key_BGLd = _rotate(key_BGLd, cos_BLd[:, None], sin_BLd[:, None])
        n_groups = key_BGLd.shape[1]
        query_BGgd = query_BHd.view(n_rows, n_groups, -1, head_dim)  # heads of one group share a key
        score_BGgL = query_BGgd @ key_BGLd.transpose(2, 3) * self.module.scaling
        score_BGgL = score_BGgL.masked_fill(~valid_BL[:, None, None], -torch.inf)
        return score_BGgL.softmax(dim=-1).flatten(1, 2).mean(dim=1)

    def _heads(self, x_BLD: Tensor, norm: str) -> Tensor:
        x_BLHd = x_BLD.view(*x_BLD.shape[:2], -1, self.module.head_dim)
        if hasattr(self.module, norm):  # Qwen3
            x_BLHd = getattr(self.module, norm)(x_BLHd)
        return x_BLHd.transpose(1, 2).float()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in the half-split layout of Llama and Qwen2, of as many channels as `cos` has (Phi-3)."""
    x, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([x * cos + torch.cat([-second, first], dim=-1) * sin, rest], dim=-1)
