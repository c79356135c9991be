"""Configurations of the LLaVA students: those of LLaVA-1.5, LLaVA-NeXT and LLaVA-OneVision plus the compression."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import LlavaConfig, LlavaNextConfig, LlavaOnevisionConfig

from fcot_vl.models.base import ROWS_ONLY, CompressedConfig

SQUARE_VITS = ("clip_vision_model", "siglip_vision_model")


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


__all__ = ["FCoTVLLlavaConfig", "FCoTVLLlavaNextConfig", "FCoTVLLlavaOnevisionConfig"]
