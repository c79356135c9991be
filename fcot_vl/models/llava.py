"""Students of LLaVA-1.5, LLaVA-NeXT and LLaVA-OneVision: a compressor before the projector, as in InternVL.

The ViTs of these models produce a square of tokens per tile, and the projector processes each token separately. The
compressor merges `ratio` neighbors of a row. If the ratio does not divide a row (SigLIP's 27), the last token of the
row is repeated. LLaVA-1.5 has one tile per image. The others (Liu et al. 2024, Li et al. 2024) place the tiles side by
side, remove the padding, and end every row with a newline token; here this is done on columns that are `ratio` tokens
wide. At ratio 1 everything equals transformers, token for token. Visual positions are compact because newlines would
break the count of kept positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextModel,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
)
from transformers.image_processing_utils import select_best_resolution
from transformers.modeling_outputs import BaseModelOutputWithPooling

from fcot_vl.models.base import ROWS_ONLY, CompressedConfig, StudentBody, StudentModel
from fcot_vl.models.base_processor import PictureProcessor
from fcot_vl.models.compressors.registry import build_compressor, fill_rows

SQUARE_VITS = ("clip_vision_model", "siglip_vision_model")


# -------------------------------------------------------------------------------------------------- configurations


class _SquareTiles(CompressedConfig):
    """Base of the three configurations: square tiles of `side` x `side` tokens.

    Attributes:
        image_seq_length: Number of visual tokens per tile after compression, always derived.
    """

    positions: ClassVar[tuple[str, ...]] = ("compact",)
    unfit: ClassVar[dict[str, str]] = ROWS_ONLY

    image_seq_length: int = 576

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.image_seq_length = self.tokens_per_tile // self.compress_ratio

    def check_compression(self) -> None:
        kind = self.vision_config.model_type
        if kind not in SQUARE_VITS:
            raise ValueError(f"the vision tower must be one of {', '.join(SQUARE_VITS)}, got {kind!r}.")
        super().check_compression()

    @property
    def side(self) -> int:
        """Number of tokens in a row of a tile, before compression."""
        return int(self.vision_config.image_size // self.vision_config.patch_size)

    @property
    def tokens_per_tile(self) -> int:
        """Number of tokens per tile that enter the compressor, with rows filled up to a multiple of the ratio."""
        return self.side * -(-self.side // self.compress_ratio) * self.compress_ratio

    @property
    def visual_channels(self) -> int:
        """Channels of a visual token before the adaptor."""
        layers = 1 if isinstance(self.vision_feature_layer, int) else len(self.vision_feature_layer)
        return int(self.vision_config.hidden_size) * layers


class FCoTVLLlavaConfig(_SquareTiles, LlavaConfig):
    """LLaVA-1.5 configuration with the compression settings; see `CompressedConfig`."""

    model_type = "fcot_vl_llava"
    teacher_type: ClassVar[Any] = LlavaConfig


class FCoTVLLlavaNextConfig(_SquareTiles, LlavaNextConfig):
    """LLaVA-NeXT configuration with the compression settings; see `CompressedConfig`."""

    model_type = "fcot_vl_llava_next"
    teacher_type: ClassVar[Any] = LlavaNextConfig


class FCoTVLLlavaOnevisionConfig(_SquareTiles, LlavaOnevisionConfig):
    """LLaVA-OneVision configuration with the compression settings; see `CompressedConfig`. Images only, no videos."""

    model_type = "fcot_vl_llava_onevision"
    teacher_type: ClassVar[Any] = LlavaOnevisionConfig


# -------------------------------------------------------------------------------------------------------- geometry


@dataclass(frozen=True)
class Grid:
    """Token layout of an image with tiles side by side, at a compress ratio.

    Attributes:
        high: Number of rows of tiles.
        wide: Number of columns of tiles.
        top, bottom, left, right: Limits of the rows and columns that are not padding.
        resized: Rows and columns that these are scaled to, or None.
    """

    high: int
    wide: int
    top: int
    bottom: int
    left: int
    right: int
    resized: tuple[int, int] | None

    @property
    def tokens(self) -> int:
        """Number of visual tokens of the image without its overview tile: rows of columns plus a newline."""
        rows, columns = self.resized or (self.bottom - self.top, self.right - self.left)
        return rows * (columns + 1)


def most_tiles(config: Any) -> int | None:
    """Return the number of tiles above which LLaVA-OneVision scales tokens down (9 for "anyres_max_9").

    Returns None for the other models.
    """
    setting = getattr(config, "vision_aspect_ratio", None)
    return None if setting is None else int(setting.removeprefix("anyres_max_"))


def grid_of(
    size: tuple[int, int], pinpoints: list[Any], tile: int, side: int, ratio: int, most: int | None
) -> Grid:
    """Compute the token layout of an image.

    Args:
        size: (height, width) of the image in pixels.
        pinpoints: Canvases that tiles may fill, as (height, width) in pixels.
        tile: Side of a tile in pixels.
        side: Number of tokens in a row of a tile, before compression.
        ratio: Compress ratio.
        most: Number of tiles above which tokens are scaled down (LLaVA-OneVision's "anyres_max_9"). If None, never.
    """
    height, width = size
    canvas = select_best_resolution([height, width], pinpoints)
    high, wide = canvas[0] // tile, canvas[1] // tile
    rows, columns = high * side, wide * side
    top = left = 0
    if width / height > columns / rows:
        top = (rows - int(round(height * (columns / width), 7))) // 2
    else:
        left = (columns - int(round(width * (rows / height), 7))) // 2
    bottom, right = rows - top, columns - left
    resized = None
    if most is not None:
        scale = math.sqrt((bottom - top) * (right - left) / (most * side**2))
        if scale > 1.1:
            resized = int((bottom - top) // scale), -(-int((right - left) // scale) // ratio)
    per_tile = -(-side // ratio)

    def column(at: int) -> int:
        return at // side * per_tile + at % side // ratio

    return Grid(high, wide, top, bottom, column(left), column(right - 1) + 1, resized)


# ---------------------------------------------------------------------------------------------------------- models


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
            image_sizes: `[n_pictures, 2]`, height and width.
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
        pictures = adapted.split([1 + grid.high * grid.wide for grid in grids])
        return [self._join(tiles, grid) for tiles, grid in zip(pictures, grids, strict=True)]

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


# ------------------------------------------------------------------------------------------------------- processor


class FCoTVLLlavaProcessor(PictureProcessor):
    """Image-only processor of the three families: each `<image>` of a prompt becomes the placeholders of one image.

    Args:
        image_processor: Image processor of LLaVA-1.5 (one tile), or of LLaVA-NeXT or LLaVA-OneVision (with
            `image_grid_pinpoints`).
        tokenizer: Tokenizer that knows the image token.
        patch_size: Patch size of the ViT in pixels.
        compress_ratio: Compress ratio of the model that this processor feeds.
        most_tiles: Tile limit of LLaVA-OneVision, see `grid_of`.
        chat_template: Jinja template, in which an image is one image token.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int = 14,
        compress_ratio: int = 1,
        most_tiles: int | None = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.patch_size, self.compress_ratio, self.most_tiles = patch_size, compress_ratio, most_tiles
        self.image_token = getattr(tokenizer, "image_token", None) or "<image>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def fit(self, config: Any) -> None:
        self.compress_ratio = getattr(config, "compress_ratio", 1)
        self.patch_size = config.vision_config.patch_size
        self.most_tiles = most_tiles(config)

    def picture_tiles(self, height: int, width: int) -> int:
        grid = self._grid(height, width, 1)
        return 1 if grid is None else 1 + grid.high * grid.wide

    def picture_tokens(self, height: int, width: int, ratio: int = 1) -> int:
        side = self._tile() // self.patch_size
        overview = side * -(-side // (self.compress_ratio * ratio))
        grid = self._grid(height, width, ratio)
        return overview if grid is None else overview + grid.tokens

    def picture_inputs(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """Return the image inputs of the model.

        Returns:
            `pixel_values` `[n_tiles, 3, height, width]` over all images, and `image_sizes` `[n_pictures, 2]` if images
            are cut into tiles.
        """
        read = [self.image_processor(image, return_tensors="pt") for image in images]
        pixels = torch.cat([one["pixel_values"].flatten(0, -4) for one in read])
        return {"pixel_values": pixels, **self.picture_layout([(i.height, i.width) for i in images])}

    def picture_layout(self, sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        return {"image_sizes": torch.tensor(list(sizes))} if self._pinpoints() else {}

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Return the run of tokens that replaces the placeholder of image `image_idx` in a prompt."""
        height, width = image_inputs["image_sizes"][image_idx] if self._pinpoints() else (1, 1)
        return self.image_token * self.picture_tokens(int(height), int(width))

    @property
    def unused_input_names(self) -> list[str]:
        """Outputs of the image processor that the model does not take."""
        return ["batch_num_images"]

    def _pinpoints(self) -> list[list[int]]:
        return [list(p) for p in getattr(self.image_processor, "image_grid_pinpoints", None) or []]

    def _tile(self) -> int:
        crop, size = getattr(self.image_processor, "crop_size", None), self.image_processor.size
        return int((crop or {}).get("height") or size.get("shortest_edge") or size["height"])

    def _grid(self, height: int, width: int, ratio: int) -> Grid | None:
        pinpoints, tile = self._pinpoints(), self._tile()
        if not pinpoints:
            return None
        ratio *= self.compress_ratio
        return grid_of((height, width), pinpoints, tile, tile // self.patch_size, ratio, self.most_tiles)
