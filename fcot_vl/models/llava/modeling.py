"""Students of LLaVA-1.5, LLaVA-NeXT and LLaVA-OneVision: a compressor before the projector, as in InternVL.

The ViTs of these models produce a square of tokens per tile, and the projector processes each token separately. The
compressor merges `ratio` neighbors of a row. If the ratio does not divide a row (SigLIP's 27), the last token of the
row is repeated. LLaVA-1.5 has one tile per image. The others (Liu et al. 2024, Li et al. 2024) place the tiles side by
side, remove the padding, and end every row with a newline token; here this is done on columns that are `ratio` tokens
wide. At ratio 1 everything equals transformers, token for token. Visual positions are compact because newlines would
break the count of kept positions.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaNextForConditionalGeneration,
    LlavaNextModel,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from fcot_vl.models.base import StudentBody, StudentModel
from fcot_vl.models.compressors.registry import build_compressor, fill_rows
from fcot_vl.models.llava.configuration import (
    FCoTVLLlavaConfig,
    FCoTVLLlavaNextConfig,
    FCoTVLLlavaOnevisionConfig,
)
from fcot_vl.models.llava.tile_layout import Grid, grid_of, most_tiles


def _with_compressor(projector: type[nn.Module]) -> type[nn.Module]:
    class Adaptor(projector):  # type: ignore[misc, valid-type]
        """`A_s(V_c(x))`: `[n_tiles, side * side, channels]` -> `[n_tiles, image_seq_length, text width]`."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.compressor = build_compressor(config)
            self.side, self.ratio = config.side, config.compress_ratio

        def forward(self, image_features: Tensor) -> Tensor:
            if self.side % self.ratio:
                rows = image_features.unflatten(1, (self.side, self.side))
                image_features = fill_rows(rows, self.ratio).flatten(1, 2)
            adapted: Tensor = super().forward(self.compressor(image_features))
            return adapted

    return Adaptor


class _SquareTileModel(StudentBody):
    """Base of the three models without their head."""

    config: Any
    vision_tower: Any
    multi_modal_projector: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.multi_modal_projector = _with_compressor(type(self.multi_modal_projector))(config)
        self.post_init()  # type: ignore[attr-defined]

    def get_visual_features(self, pixel_values: Tensor, **layout: Tensor) -> Tensor:
        """Compute the tokens of the ViT before the adaptor, `[n_tiles, side * side, channels]`.

        Args:
            pixel_values: `[n_tiles, 3, height, width]`.

        Raises:
            ValueError: If the ViT does not produce side * side tokens (wrong `vision_feature_select_strategy`).
        """
        states = self.vision_tower(
            pixel_values.to(self.vision_tower.dtype), output_hidden_states=True, return_dict=True
        ).hidden_states
        layers = self.config.vision_feature_layer
        picked = [states[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
        if self.config.vision_feature_select_strategy == "default":
            picked = [state[:, 1:] for state in picked]
        features = torch.cat(picked, dim=-1)
        if features.shape[1] != self.config.side**2:
            raise ValueError(
                f"the ViT gives {features.shape[1]} tokens a tile, {self.config.side**2} were expected: "
                f"vision_feature_select_strategy {self.config.vision_feature_select_strategy!r} does not fit it."
            )
        return features

    def adapt_visual_features(
        self, visual_features: Tensor, **layout: Tensor
    ) -> dict[str, BaseModelOutputWithPooling]:
        """Compress and project features and lay them out as in a prompt: one `[tokens, width]` per image."""
        weight = self.multi_modal_projector.linear_1.weight
        adapted = self.multi_modal_projector(visual_features.to(weight.device, weight.dtype))
        return {"image": BaseModelOutputWithPooling(pooler_output=self.lay_out(adapted, **layout))}

    def lay_out(self, adapted: Tensor, **layout: Tensor) -> list[Tensor]:
        """Convert tiles `[n_tiles, image_seq_length, width]` to images, each `[tokens, width]`."""
        return list(adapted)

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Compute the image inputs of the decoder: `pooler_output` holds one `[tokens, width]` per image."""
        return self.adapt_visual_features(self.get_visual_features(pixel_values))["image"]


class _AnyresModel(_SquareTileModel):
    """Base of LLaVA-NeXT and LLaVA-OneVision: an overview tile, then the tiles side by side."""

    image_newline: Any

    def get_image_features(
        self, pixel_values: Tensor, image_sizes: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Compute the image inputs of the decoder: `pooler_output` holds one `[tokens, width]` per image.

        `pixel_values` may have five dimensions, padded to the image with the most tiles.
        """
        assert image_sizes is not None
        if pixel_values.ndim == 5:
            tiles = [1 + grid.high * grid.wide for grid in self.grids(image_sizes)]
            pixel_values = torch.cat([p[:n] for p, n in zip(pixel_values, tiles, strict=True)])
        features = self.get_visual_features(pixel_values)
        return self.adapt_visual_features(features, image_sizes=image_sizes)["image"]

    def grids(self, image_sizes: Tensor) -> list[Grid]:
        """Return the token layout of each image.

        Args:
            image_sizes: `[n_images, 2]`, height and width.
        """
        config = self.config
        tile, most = config.vision_config.image_size, most_tiles(config)
        return [
            grid_of(
                (height, width), config.image_grid_pinpoints, tile, config.side, config.compress_ratio, most
            )
            for height, width in image_sizes.tolist()
        ]

    def lay_out(self, adapted: Tensor, *, image_sizes: Tensor) -> list[Tensor]:  # type: ignore[override]
        grids = self.grids(image_sizes)
        images = adapted.split([1 + grid.high * grid.wide for grid in grids])
        return [self._join(tiles, grid) for tiles, grid in zip(images, grids, strict=True)]

    def _join(self, tiles: Tensor, grid: Grid) -> Tensor:
        """Join the tiles of one image, `[1 + high * wide, image_seq_length, width]` to `[tokens, width]`."""
        side = self.config.side
        joined = tiles[1:].view(grid.high, grid.wide, side, -1, tiles.shape[-1])
        joined = joined.permute(4, 0, 2, 1, 3).flatten(3, 4).flatten(1, 2)
        joined = joined[:, grid.top : grid.bottom, grid.left : grid.right]
        if grid.resized is not None:
            joined = F.interpolate(joined[None], grid.resized, mode="bilinear")[0]
        newline = self.image_newline.to(joined.device, joined.dtype)[:, None, None]
        joined = torch.cat([joined, newline.expand(-1, joined.shape[1], 1)], dim=-1)
        return torch.cat([tiles[0], joined.flatten(1, 2).transpose(0, 1)])


class FCoTVLLlavaModel(_SquareTileModel, LlavaModel):
    """LLaVA-1.5 with a compressor, without its head."""

    config_class = FCoTVLLlavaConfig


class FCoTVLLlavaNextModel(_AnyresModel, LlavaNextModel):
    """LLaVA-NeXT with a compressor, without its head."""

    config_class = FCoTVLLlavaNextConfig


class FCoTVLLlavaOnevisionModel(_AnyresModel, LlavaOnevisionModel):
    """LLaVA-OneVision with a compressor, without its head."""

    config_class = FCoTVLLlavaOnevisionConfig


class FCoTVLLlavaForConditionalGeneration(StudentModel, LlavaForConditionalGeneration):
    """Student of LLaVA-1.5 with its head."""

    config_class: ClassVar[Any] = FCoTVLLlavaConfig
    body: ClassVar[Any] = FCoTVLLlavaModel


class FCoTVLLlavaNextForConditionalGeneration(StudentModel, LlavaNextForConditionalGeneration):
    """Student of LLaVA-NeXT with its head."""

    config_class: ClassVar[Any] = FCoTVLLlavaNextConfig
    body: ClassVar[Any] = FCoTVLLlavaNextModel


class FCoTVLLlavaOnevisionForConditionalGeneration(StudentModel, LlavaOnevisionForConditionalGeneration):
    """Student of LLaVA-OneVision with its head."""

    config_class: ClassVar[Any] = FCoTVLLlavaOnevisionConfig
    body: ClassVar[Any] = FCoTVLLlavaOnevisionModel


__all__ = [
    "FCoTVLLlavaForConditionalGeneration",
    "FCoTVLLlavaModel",
    "FCoTVLLlavaNextForConditionalGeneration",
    "FCoTVLLlavaNextModel",
    "FCoTVLLlavaOnevisionForConditionalGeneration",
    "FCoTVLLlavaOnevisionModel",
]
