"""Configuration of the student: InternVL's plus compress ratio, compressor and position scheme.

Everything that depends on the ratio (visual tokens per tile, shapes of the compressor, length of the prompt) is derived
here.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

from transformers import InternVLConfig

from fcot_vl.models.base import COMPRESS_RATIOS, VISUAL_POSITIONS, CompressedConfig
from fcot_vl.models.compressors.registry import WINDOWED
from fcot_vl.models.compressors.windows import first_tokens, window_grid


class FCoTVLConfig(CompressedConfig, InternVLConfig):
    """InternVL configuration with the additional setting `compress_ratio` and its options.

    Attributes:
        compress_ratio: Number of visual tokens of the teacher per visual token of the student (1, 2, 4, 8 or 16). Ratio
            1 is the teacher itself: its compressor is the identity, without parameters.
        compressor: "conv" (the paper's, section 3) or another key of `COMPRESSORS`.
        visual_positions: Position scheme. "kept" gives a compressed visual token the position of the first token that
            it replaces (for a window, the upper left one), and leaves all text at the teacher's positions. "compact"
            numbers the tokens consecutively, as in serving engines that only count tokens.
        image_seq_length: Number of visual tokens per tile after compression. Always derived from the tile size and the
            ratio; a value that is passed in is ignored.

    Raises:
        ValueError: If the ratio, compressor or position scheme is unknown, the ratio does not divide the tokens of a
            tile, or a windowed compressor is used with tiles that are not square.
    """

    model_type = "fcot_vl"
    teacher_type: ClassVar[Any] = InternVLConfig

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.image_seq_length = self.tokens_per_tile // self.compress_ratio

    @property
    def tokens_per_tile(self) -> int:
        """Number of visual tokens per tile before compression (256 for a 448-pixel tile with 14-pixel patches)."""
        height, width = self.vision_config.image_size
        patch_height, patch_width = self.vision_config.patch_size
        return round((height // patch_height) * (width // patch_width) * self.downsample_ratio**2)

    @property
    def visual_channels(self) -> int:
        """Channels of a visual token before the adaptor: ViT width times number of patches merged into one token."""
        return self.vision_config.hidden_size * int(1 / self.downsample_ratio) ** 2

    def check_compression(self) -> None:
        super().check_compression()
        if self.compress_ratio > 1 and self.compressor in WINDOWED:
            window_grid(self.tokens_per_tile, self.compress_ratio)

    @property
    def keeps_positions(self) -> bool:
        """True if positions differ from numbering tokens consecutively."""
        return self.compress_ratio > 1 and self.visual_positions == "kept"

    @property
    def position_steps(self) -> list[int]:
        """Position increment from each visual token of a tile to the next token: `image_seq_length` numbers.

        With kept positions, the increments sum to `tokens_per_tile`. Each increment is the ratio. With windows, an
        increment within a row is the width of the window, and the last increment of a row leads to the next row of
        windows. Otherwise each increment is 1.
        """
        if not self.keeps_positions:
            return [1] * self.image_seq_length
        if self.compressor not in WINDOWED:
            return [self.compress_ratio] * self.image_seq_length
        first = first_tokens(self.tokens_per_tile, self.compress_ratio)
        return [b - a for a, b in pairwise([*first, self.tokens_per_tile])]


__all__ = ["COMPRESS_RATIOS", "VISUAL_POSITIONS", "FCoTVLConfig"]
