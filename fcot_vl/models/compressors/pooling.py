"""The compressor without parameters: the starting point of the other compressors and the baseline they must beat."""

from __future__ import annotations

from torch import Tensor, nn


class PoolingCompressor(nn.Module):
    """Mean of each run of `ratio` tokens; no parameters."""

    def __init__(self, channels: int, n_tokens: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio

    def reset_parameters(self) -> None:
        """Do nothing; there are no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.ratio)).mean(2)
