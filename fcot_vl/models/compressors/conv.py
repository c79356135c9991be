"""The paper's compressor: one convolution along the tokens of a tile."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvCompressor(nn.Conv1d):
    """1-D convolution along the token sequence, kernel = stride = ratio, dense over channels (paper, section 3).

    Initialized as the mean over the taps, so that an untrained student equals mean pooling. The paper does not specify
    the initialization; this one is ours.
    """

    def __init__(self, channels: int, n_tokens: int, ratio: int) -> None:
        super().__init__(channels, channels, kernel_size=ratio, stride=ratio)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize as the mean over the taps: weight[o, i, k] = 1/ratio where o == i, else 0; bias 0."""
        eye = torch.eye(self.out_channels, dtype=self.weight.dtype, device=self.weight.device)
        self.weight.copy_(eye.unsqueeze(-1) / self.kernel_size[0])
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)
