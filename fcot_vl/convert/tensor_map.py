"""Mapping from tensors of the original checkpoint to tensors of the target.

Most tensors are only renamed. The ViT's fused `qkv` is split in three. InternLM2's `wqkv` is laid out as (key-value
heads, group of query heads + key + value, head width) and is split along the middle axis. A position table made for
another tile size is resized once, as the original does on every call.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import InternVLConfig

VISION = "vision_tower."
PROJECTOR = "multi_modal_projector."
TEXT = "language_model."

RENAMED = {  # original -> target; `*` matches a layer number, `@` matches weight or bias
    "vision_model.embeddings.class_embedding": VISION + "embeddings.cls_token",
    "vision_model.embeddings.patch_embedding.@": VISION + "embeddings.patch_embeddings.projection.@",
    "vision_model.encoder.layers.*.attn.proj.@": VISION + "encoder.layer.*.attention.projection_layer.@",
    "vision_model.encoder.layers.*.attn.q_norm.@": VISION + "encoder.layer.*.attention.q_norm.@",
    "vision_model.encoder.layers.*.attn.k_norm.@": VISION + "encoder.layer.*.attention.k_norm.@",
    "vision_model.encoder.layers.*.ls1": VISION + "encoder.layer.*.lambda_1",
    "vision_model.encoder.layers.*.ls2": VISION + "encoder.layer.*.lambda_2",
    "vision_model.encoder.layers.*.norm1.@": VISION + "encoder.layer.*.layernorm_before.@",
    "vision_model.encoder.layers.*.norm2.@": VISION + "encoder.layer.*.layernorm_after.@",
    "vision_model.encoder.layers.*.mlp.fc1.@": VISION + "encoder.layer.*.mlp.fc1.@",
    "vision_model.encoder.layers.*.mlp.fc2.@": VISION + "encoder.layer.*.mlp.fc2.@",
    "mlp1.0.@": PROJECTOR + "layer_norm.@",
    "mlp1.1.@": PROJECTOR + "linear_1.@",
    "mlp1.3.@": PROJECTOR + "linear_2.@",
}
RENAMED_INTERNLM2 = {
    "language_model.model.tok_embeddings.@": TEXT + "model.embed_tokens.@",
    "language_model.model.layers.*.attention.wo.@": TEXT + "model.layers.*.self_attn.o_proj.@",
    "language_model.model.layers.*.attention_norm.@": TEXT + "model.layers.*.input_layernorm.@",
    "language_model.model.layers.*.ffn_norm.@": TEXT + "model.layers.*.post_attention_layernorm.@",
    "language_model.model.layers.*.feed_forward.w1.@": TEXT + "model.layers.*.mlp.gate_proj.@",
    "language_model.model.layers.*.feed_forward.w2.@": TEXT + "model.layers.*.mlp.down_proj.@",
    "language_model.model.layers.*.feed_forward.w3.@": TEXT + "model.layers.*.mlp.up_proj.@",
    "language_model.model.norm.@": TEXT + "model.norm.@",
    "language_model.output.@": TEXT + "lm_head.@",
}
VISION_QKV = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.attn\.qkv\.(weight|bias)")
TEXT_QKV = re.compile(r"language_model\.model\.layers\.(\d+)\.attention\.wqkv\.(weight|bias)")
POSITIONS = "vision_model.embeddings.position_embedding"
LM_HEADS = ("language_model.lm_head.weight", "language_model.output.weight")

Cut = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Becomes:
    """Target tensors of one source tensor.

    Attributes:
        targets: Names in the Hugging Face layout.
        cut: Function that splits the source tensor into one tensor per target.
    """

    targets: tuple[str, ...]
    cut: Cut


@dataclass(frozen=True)
class Unused:
    """Source tensor without a target.

    Attributes:
        reason: Reason why nothing is lost.
    """

    reason: str


class NameMap:
    """Name mapping of one checkpoint.

    Args:
        language_model: Key of `architecture.LANGUAGE_MODELS`.
        config: Target configuration.
    """

    def __init__(self, language_model: str, config: InternVLConfig) -> None:
        self.config = config
        self.internlm2 = language_model == "internlm2"
        renamed = RENAMED | (RENAMED_INTERNLM2 if self.internlm2 else {})
        self.rules = [(pattern_of(source), target) for source, target in renamed.items()]

    def __call__(self, name: str) -> Becomes | Unused | None:
        """Return the target of a source tensor, or None if its name is unknown."""
        if name.endswith("rotary_emb.inv_freq"):
            return Unused("rotary frequencies, computed from the configuration")
        if name in LM_HEADS and self.config.tie_word_embeddings:
            return Unused("the head is tied to the embedding")
        if name == POSITIONS:
            return Becomes((VISION + "embeddings.position_embeddings",), lambda t: [self._resize(t)])
        if found := VISION_QKV.fullmatch(name):
            stem = f"{VISION}encoder.layer.{found[1]}.attention."
            return Becomes(_qkv(stem, found[2]), lambda t: list(t.chunk(3)))
        if self.internlm2 and (found := TEXT_QKV.fullmatch(name)):
            stem = f"{TEXT}model.layers.{found[1]}.self_attn."
            return Becomes(_qkv(stem, found[2]), self._split_wqkv)
        for pattern, target in self.rules:
            if found := pattern.fullmatch(name):
                return Becomes((fill(target, found),), lambda t: [t])
        if not self.internlm2 and name.startswith("language_model."):
            return Becomes((name,), lambda t: [t])
        return None

    def _split_wqkv(self, wqkv: Tensor) -> list[Tensor]:
        """Split `[(heads + 2 * kv_heads) * head_dim, ...]` into the query, key and value projections."""
        text = self.config.text_config
        group = text.num_attention_heads // text.num_key_value_heads
        head_dim = text.hidden_size // text.num_attention_heads
        heads = wqkv.unflatten(0, (text.num_key_value_heads, group + 2, head_dim))
        return [part.flatten(0, 2) for part in heads.split((group, 1, 1), dim=1)]

    def _resize(self, table: Tensor) -> Tensor:
        """Resize `[1, 1 + positions, width]` to the tile size of this configuration.

        Bicubic in float32, as the original.
        """
        vision = self.config.vision_config
        side = round((table.shape[1] - 1) ** 0.5)
        wanted = tuple(
            size // patch for size, patch in zip(vision.image_size, vision.patch_size, strict=True)
        )
        if wanted == (side, side):
            return table
        grid = table[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=wanted, mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def runtime_name(name: str) -> str:
    """Return the name inside `InternVLForConditionalGeneration` of a tensor of the Hugging Face layout."""
    if name.startswith(TEXT + "lm_head."):
        return name.removeprefix(TEXT)
    if name.startswith(TEXT + "model."):
        return "model.language_model." + name.removeprefix(TEXT + "model.")
    return "model." + name


def _qkv(stem: str, kind: str) -> tuple[str, ...]:
    return tuple(f"{stem}{part}_proj.{kind}" for part in "qkv")


def pattern_of(name: str) -> re.Pattern[str]:
    """Compile a name with `*` and `@` into the regular expression that matches it."""
    return re.compile(
        re.escape(name).replace(r"\*", r"(?P<layer>\d+)").replace("@", r"(?P<kind>weight|bias)")
    )


def fill(name: str, found: re.Match[str]) -> str:
    """Replace `*` and `@` in a name with the values of a match."""
    groups = found.groupdict()
    return name.replace("*", groups.get("layer") or "").replace("@", groups.get("kind") or "")
