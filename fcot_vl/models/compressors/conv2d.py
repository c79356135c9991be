"""The paper's convolution, applied to windows of the grid instead of runs of a row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.models.compressors.windows import Windows, convolve


class Conv2dCompressor(Windows):
    """2-D convolution, kernel = stride = window, dense over channels.

    This compressor is ours and measures the effect of the second dimension. It is initialized as the mean over the
    window. At ratio 2 the window is 1 x 2 and the compressor equals `conv`.
    """

    def __init__(self, channels: int, n_tokens: int, ratio: int) -> None:
        super().__init__(n_tokens, ratio)
        self.conv = nn.Conv2d(channels, channels, kernel_size=self.window, stride=self.window)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize as the mean over the window: weight[o, i, h, w] = 1/ratio where o == i, else 0; bias 0."""
        weight, bias = self.conv.weight, self.conv.bias
        eye = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
        weight.copy_(eye[..., None, None] / (self.window[0] * self.window[1]))
        if bias is not None:
            bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self.conv, x, (self.side, self.side))
