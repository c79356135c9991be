"""Configurations of the Qwen students: those of Qwen2-VL, Qwen2.5-VL and Qwen3-VL plus the compression."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import Qwen2_5_VLConfig, Qwen2VLConfig, Qwen3VLConfig

from fcot_vl.models.base import ROWS_ONLY, CompressedConfig


class _AnySize(CompressedConfig):
    """Base of the three configurations: images are not cut into tiles."""

    positions: ClassVar[tuple[str, ...]] = ("kept",)
    unfit: ClassVar[dict[str, str]] = {
        "qformer": "it needs tiles of one size, and here images have any",
        **ROWS_ONLY,
    }

    @property
    def tokens_per_tile(self) -> None:
        """None; there are no tiles."""
        return None

    @property
    def visual_channels(self) -> int:
        """Channels of a visual token before the adaptor: ViT width times number of patches joined into one token."""
        vision = self.vision_config
        width = (
            getattr(vision, "embed_dim", None) or vision.hidden_size
        )  # Qwen2-VL's hidden_size is the decoder's
        return int(width * vision.spatial_merge_size**2)


class FCoTVLQwen2VLConfig(_AnySize, Qwen2VLConfig):
    """Qwen2-VL configuration with the compression settings; see `CompressedConfig`."""

    model_type = "fcot_vl_qwen2_vl"
    teacher_type: ClassVar[Any] = Qwen2VLConfig


class FCoTVLQwen25VLConfig(_AnySize, Qwen2_5_VLConfig):
    """Qwen2.5-VL configuration with the compression settings; see `CompressedConfig`."""

    model_type = "fcot_vl_qwen2_5_vl"
    teacher_type: ClassVar[Any] = Qwen2_5_VLConfig


class FCoTVLQwen3VLConfig(_AnySize, Qwen3VLConfig):
    """Qwen3-VL configuration with the compression settings; see `CompressedConfig`."""

    model_type = "fcot_vl_qwen3_vl"
    teacher_type: ClassVar[Any] = Qwen3VLConfig


__all__ = ["FCoTVLQwen2VLConfig", "FCoTVLQwen3VLConfig", "FCoTVLQwen25VLConfig"]
