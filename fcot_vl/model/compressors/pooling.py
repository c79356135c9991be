"""The compressor without parameters: what the others start from, and have to be better than."""

from __future__ import annotations

from torch import Tensor, nn


class PoolingCompressor(nn.Module):
    """Mean of each run of `ratio` tokens; no parameters."""

    def __init__(self, channels: int, n_tokens: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio

    def reset_parameters(self) -> None:
        """Nothing to reset."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.ratio)).mean(2)
