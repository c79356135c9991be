"""Configuration of the student: InternVL's plus the compress ratio, the compressor and the position scheme.

First file of the model room: everything that depends on the ratio (visual tokens per tile, compressor shapes, prompt
length) derives from here.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

from transformers import InternVLConfig

from fcot_vl.model.compressor import WINDOWED
from fcot_vl.model.compressors.windows import first_tokens, window_grid
from fcot_vl.model.student import COMPRESS_RATIOS, VISUAL_POSITIONS, CompressedConfig


class FCoTVLConfig(CompressedConfig, InternVLConfig):
    """An InternVL configuration with one dial, `compress_ratio`.

    Attributes:
        compress_ratio: visual tokens of the teacher per visual token of the student (1, 2, 4, 8 or 16). Ratio 1 is the
            teacher itself: its compressor is the identity, without parameters.
        compressor: "conv" (the paper's, section 3) or another of `COMPRESSORS`.
        visual_positions: "kept" gives a compressed visual token the position of the first token it replaces (of a
            window the upper left one), and leaves all text at the position it has for the teacher; "compact" numbers
            the tokens one after another, as serving engines do that only count.
        image_seq_length: visual tokens per tile after compression. Always derived from the tile size and the ratio;
            a value that is passed in is ignored.

    Raises:
        ValueError: unknown ratio, compressor or position scheme, a ratio that does not divide the tokens of a tile, or
            a compressor of windows for a tile that is no square.
    """

    model_type = "fcot_vl"
    teacher_type: ClassVar[Any] = InternVLConfig

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.image_seq_length = self.tokens_per_tile // self.compress_ratio

    @property
    def tokens_per_tile(self) -> int:
        """Visual tokens of one tile before compression (256 for a 448-pixel tile with 14-pixel patches)."""
        height, width = self.vision_config.image_size
        patch_height, patch_width = self.vision_config.patch_size
        return round((height // patch_height) * (width // patch_width) * self.downsample_ratio**2)

    @property
    def visual_channels(self) -> int:
        """Channels of a visual token before the adaptor: the ViT's width times the patches merged into one token."""
        return self.vision_config.hidden_size * int(1 / self.downsample_ratio) ** 2

    def check_compression(self) -> None:
        super().check_compression()
        if self.compress_ratio > 1 and self.compressor in WINDOWED:
            window_grid(self.tokens_per_tile, self.compress_ratio)

    @property
    def keeps_positions(self) -> bool:
        """Whether positions differ from counting tokens one by one."""
        return self.compress_ratio > 1 and self.visual_positions == "kept"

    @property
    def position_steps(self) -> list[int]:
        """Positions from each visual token of a tile to what follows it, `image_seq_length` numbers.

        When positions are kept they sum to `tokens_per_tile`: the ratio each, but with windows a step along the row is
        the window's width, and the last one goes to the next row of windows. Else 1 each.
        """
        if not self.keeps_positions:
            return [1] * self.image_seq_length
        if self.compressor not in WINDOWED:
            return [self.compress_ratio] * self.image_seq_length
        first = first_tokens(self.tokens_per_tile, self.compress_ratio)
        return [b - a for a, b in pairwise([*first, self.tokens_per_tile])]


__all__ = ["COMPRESS_RATIOS", "VISUAL_POSITIONS", "FCoTVLConfig"]
