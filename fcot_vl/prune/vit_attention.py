"""Attention of the CLS token over the patches of InternVL's ViT, and the keys of the patches.

Used by the methods of `fcot_vl.prune` that rate a page before the decoder sees it. The layer is the one whose output
the projector reads (`vision_feature_layer`). In LLaVA this is layer -2, which the reference implementations name; in
InternVL it is the last one. Hooks read the query and key that the layer computes anyway. One row of attention (CLS) is
multiplied out; everything else stays on sdpa. Pixel shuffle makes one visual token of 2x2 patches (`downsample_ratio`
0.5); over these patches, attention is summed and keys are averaged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class VitAttentionProbe:
    """Record attention and keys of the layer of a model's ViT whose output the projector reads.

    Args:
        model: Model to read from.
        one_head: Whether to treat all heads as one of the ViT's full width, instead of computing each head separately
            and averaging.

    Raises:
        ValueError: If the model has no such ViT.
    """

    def __init__(self, model: Any, one_head: bool = False) -> None:
        config = model.config
        layers = getattr(getattr(getattr(model.model, "vision_tower", None), "encoder", None), "layer", None)
        if not hasattr(config, "downsample_ratio") or layers is None:
            raise ValueError(
                f"{type(model).__name__} has no InternVL ViT, whose attention this method needs: "
                "choose fastv, pyramiddrop, sparsevlm, divprune, random or uniform."
            )
        layer: int = config.vision_feature_layer  # counted from the embeddings, which are 0
        self.attention = layers[layer if layer < 0 else layer - 1].attention
        self.width: int = self.attention.embed_dim if one_head else self.attention.head_dim
        self.merged = round(1 / config.downsample_ratio)  # number of patches in a row of a visual token
        self.side = config.vision_config.image_size[0] // config.vision_config.patch_size[0] // self.merged
        if self.side**2 != config.image_seq_length:
            raise ValueError(
                f"a tile has {config.image_seq_length} visual tokens here, the ViT gives {self.side**2}: methods that "
                "use the ViT's attention need the uncompressed model."
            )
        self.query_THd: Tensor | None = None
        self.found: tuple[Tensor, Tensor] | None = None

    def hooks(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Register the hooks."""
        return [
            self.attention.q_norm.register_forward_hook(self.record_query),
            self.attention.k_norm.register_forward_hook(self.record_key),
        ]

    def record_query(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.query_THd = output[:, 0].unflatten(-1, (-1, self.width)).float()

    def record_key(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        assert self.query_THd is not None
        key_TPHd = output.unflatten(-1, (-1, self.width)).float()
        score_THP = torch.einsum("thd,tphd->thp", self.query_THd, key_TPHd) * self.width**-0.5
        attention_TP = score_THP.softmax(dim=-1).mean(dim=1)[:, 1:]
        self.query_THd = None
        attention_TN = self.pooled(attention_TP[..., None])[..., 0] * self.merged**2
        self.found = attention_TN, self.pooled(key_TPHd[:, 1:].mean(dim=2))

    def pooled(self, x_TPd: Tensor) -> Tensor:
        """Average patches into visual tokens, both in raster order: [T, P, d] -> [T, P / 4, d]."""
        x = x_TPd.unflatten(1, (self.side, self.merged, self.side, self.merged))
        return x.mean(dim=(2, 4)).flatten(1, 2)

    def pop(self, n_visual: int) -> tuple[Tensor, Tensor]:
        """Return (attention [T, N], keys [T, N, d]) of the tiles of a prefill with that many visual tokens.

        Raises:
            ValueError: If the images were not encoded immediately before (precomputed features, or repetition for
                beams).
        """
        found, self.found = self.found, None
        if found is None or found[0].numel() != n_visual:
            seen = 0 if found is None else found[0].numel()
            raise ValueError(
                f"the prompt has {n_visual} visual tokens, the ViT made {seen}: a method that uses the ViT's attention "
                "needs pixel_values (not precomputed features) and one beam."
            )
        return found
