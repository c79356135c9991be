"""Students of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: a compressor before the MLP of the patch merger.

The ViTs of these models take images of any size. Their merger joins 2 x 2 patches (like InternVL's pixel shuffle) and
projects. Here the merger only joins, then the compressor merges `ratio` neighbors of a row of the image, then the MLP
of the merger projects. If the ratio does not divide a row, the last token of the row is repeated.

Positions have two dimensions and are kept: a compressed token has the position of the first token that it replaces, and
text has the same position as in the teacher. Qwen3-VL adds features of deeper ViT layers to the first layers of the
decoder; each of their mergers has its own compressor. Images only, no videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen2VLForConditionalGeneration,
    Qwen2VLModel,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
)
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from fcot_vl.models.base import StudentBody, StudentModel
from fcot_vl.models.compressors.registry import build_compressor, fill_rows
from fcot_vl.models.packed_attention import in_rows
from fcot_vl.models.qwen_vl.configuration import (
    FCoTVLQwen2VLConfig,
    FCoTVLQwen3VLConfig,
    FCoTVLQwen25VLConfig,
)


class _Merger:
    """Merger in two halves: `forward` only joins patches; `adapt` normalizes, compresses and projects."""

    compressor: nn.Module
    hidden_size: int

    def forward(self, x: Tensor) -> Tensor:
        """Join patches: `[patches, width]` to `[tokens, channels]`."""
        return x.view(-1, self.hidden_size)

    def normalize(self, x: Tensor) -> Tensor:
        """Normalize `[tokens, channels]`, either each patch of a token separately or the token as a whole."""
        raise NotImplementedError

    def project(self, x: Tensor) -> Tensor:
        """Project `[tokens, channels]` to `[tokens, text width]`."""
        raise NotImplementedError

    def adapt(self, features: Tensor, ratio: int, grids: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Compress and project the concatenated tokens of images of (rows, columns) tokens.

        Returns:
            One `[tokens, text width]` per image.
        """
        parts = self.normalize(features).split([high * wide for high, wide in grids])
        rows = [
            fill_rows(part.view(high, wide, -1), ratio).flatten(0, 1)
            for part, (high, wide) in zip(parts, grids, strict=True)
        ]
        compressed = self.compressor(torch.cat(rows)[None])[0]
        return list(self.project(compressed).split([high * -(-wide // ratio) for high, wide in grids]))


def _in_two_halves(merger: nn.Module, config: Any) -> nn.Module:
    """Return the same merger, with the same weights and names, as a `_Merger`."""

    class Merger(_Merger, type(merger)):  # type: ignore[misc]
        def normalize(self, x: Tensor) -> Tensor:
            norm = self.ln_q if hasattr(self, "ln_q") else self.norm  # Qwen2-VL and 2.5, or Qwen3-VL
            if getattr(self, "use_postshuffle_norm", False):
                return norm(x)
            return norm(x.reshape(-1, norm.weight.shape[0])).view(-1, self.hidden_size)

        def project(self, x: Tensor) -> Tensor:
            if hasattr(self, "mlp"):
                return self.mlp(x)
            return self.linear_fc2(self.act_fn(self.linear_fc1(x)))

    halved = object.__new__(Merger)
    halved.__dict__ |= merger.__dict__
    halved.compressor = build_compressor(config)
    return halved


class _AnySizeModel(StudentBody):
    """Base of the three models without their head."""

    config: Any
    visual: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.visual.merger = _in_two_halves(self.visual.merger, self.config)
        deeper = getattr(self.visual, "deepstack_merger_list", [])
        for index, merger in enumerate(deeper):
            deeper[index] = _in_two_halves(merger, self.config)
        self.post_init()  # type: ignore[attr-defined]

    def get_visual_features(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Compute the joined tokens of the ViT before the adaptor, `[tokens, channels]`.

        Features of deeper layers are concatenated along the channels.

        Args:
            pixel_values: `[patches, values of a patch]` over all images.
            image_grid_thw: `[n_images, 3]`, number of patches in time (1), height and width.
        """
        output = self.visual(pixel_values.to(self.visual.dtype), grid_thw=image_grid_thw, return_dict=True)
        deeper = getattr(output, "deepstack_features", None) or []
        return torch.cat([output.pooler_output, *deeper], dim=-1)

    def adapt_visual_features(  # type: ignore[override]
        self, visual_features: Tensor, image_grid_thw: Tensor
    ) -> dict[str, BaseModelOutputWithDeepstackFeatures]:
        """Compress and project features into one `[tokens, width]` per image, also those of the deeper layers."""
        merge, ratio = self.visual.spatial_merge_size, self.config.compress_ratio
        grids = [(high // merge, wide // merge) for _, high, wide in image_grid_thw.tolist()]
        mergers = [self.visual.merger, *getattr(self.visual, "deepstack_merger_list", [])]
        weight = next(mergers[0].parameters())
        parts = visual_features.to(weight.device, weight.dtype).chunk(len(mergers), dim=-1)
        adapted, *deeper = [
            merger.adapt(part, ratio, grids) for merger, part in zip(mergers, parts, strict=True)
        ]
        output = BaseModelOutputWithDeepstackFeatures(pooler_output=adapted, deepstack_features=deeper)
        return {"image": output}

    def visual_inputs(self, input_ids: Tensor, visual_features: Tensor, **layout: Tensor) -> dict[str, Any]:
        """Return the inputs of `forward` that replace images: the adapted features and the inputs for positions."""
        is_visual = (input_ids == self.config.image_token_id).int()
        return super().visual_inputs(input_ids, visual_features, **layout) | {
            **layout,
            "mm_token_type_ids": is_visual,
        }

    def packed_position_ids(
        self, input_ids: Tensor, sequence_lengths: Sequence[int], **layout: Tensor
    ) -> Tensor:
        """See `StudentBody.packed_position_ids`; positions are in time, height and width."""
        rows, real = in_rows(input_ids, sequence_lengths)
        positions, _ = self.get_rope_index(  # type: ignore[attr-defined]
            rows,
            mm_token_type_ids=(rows == self.config.image_token_id).int() * real,
            attention_mask=real.long(),
            **layout,
        )
        return positions[:, real][:, None]

    def get_image_features(
        self, pixel_values: Tensor, image_grid_thw: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithDeepstackFeatures:
        """Compute the image inputs of the decoder: `pooler_output` holds one `[tokens, width]` per image."""
        assert image_grid_thw is not None
        features = self.get_visual_features(pixel_values, image_grid_thw)
        return self.adapt_visual_features(features, image_grid_thw)["image"]

    def get_vision_position_ids(
        self, start_position: int, grid_thw: Any, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the teacher's positions, `[3, tokens]`, of the first of every `ratio` tokens in a row of an image."""
        positions: Tensor = super().get_vision_position_ids(start_position, grid_thw, *args, **kwargs)  # type: ignore[misc]
        wide = int(grid_thw[2]) // self.visual.spatial_merge_size
        return positions.unflatten(1, (-1, wide))[:, :, :: self.config.compress_ratio].flatten(1)


class FCoTVLQwen2VLModel(_AnySizeModel, Qwen2VLModel):
    """Qwen2-VL with a compressor, without its head."""

    config_class = FCoTVLQwen2VLConfig


class FCoTVLQwen25VLModel(_AnySizeModel, Qwen2_5_VLModel):
    """Qwen2.5-VL with a compressor, without its head."""

    config_class = FCoTVLQwen25VLConfig


class FCoTVLQwen3VLModel(_AnySizeModel, Qwen3VLModel):
    """Qwen3-VL with compressors, without its head."""

    config_class = FCoTVLQwen3VLConfig


class _AnySizeStudent(StudentModel):
    adaptors: ClassVar[tuple[str, ...]] = ("visual.merger",)

    @property
    def vision(self) -> nn.Module:
        """The ViT without its mergers."""
        return nn.ModuleDict({n: m for n, m in self.model.visual.named_children() if "merger" not in n})


class FCoTVLQwen2VLForConditionalGeneration(_AnySizeStudent, Qwen2VLForConditionalGeneration):
    """Student of Qwen2-VL with its head."""

    config_class: ClassVar[Any] = FCoTVLQwen2VLConfig
    body: ClassVar[Any] = FCoTVLQwen2VLModel


class FCoTVLQwen25VLForConditionalGeneration(_AnySizeStudent, Qwen2_5_VLForConditionalGeneration):
    """Student of Qwen2.5-VL with its head."""

    config_class: ClassVar[Any] = FCoTVLQwen25VLConfig
    body: ClassVar[Any] = FCoTVLQwen25VLModel


class FCoTVLQwen3VLForConditionalGeneration(_AnySizeStudent, Qwen3VLForConditionalGeneration):
    """Student of Qwen3-VL with its head."""

    config_class: ClassVar[Any] = FCoTVLQwen3VLConfig
    adaptors: ClassVar[tuple[str, ...]] = ("visual.merger", "visual.deepstack_merger_list")
    body: ClassVar[Any] = FCoTVLQwen3VLModel


__all__ = [
    "FCoTVLQwen2VLForConditionalGeneration",
    "FCoTVLQwen2VLModel",
    "FCoTVLQwen3VLForConditionalGeneration",
    "FCoTVLQwen3VLModel",
    "FCoTVLQwen25VLForConditionalGeneration",
    "FCoTVLQwen25VLModel",
]
