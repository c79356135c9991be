"""LDPv2: MLP, average pool, depthwise convolution with a skip ("MobileVLM V2", arXiv 2402.03766)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.models.compressors.windows import Windows, convolve, depthwise

NARROWER = 4  # the MLP has channels / 4


class LDPv2(Windows):
    """MLP on every token, mean of each window, then a 3x3 neighborhood of windows added channel by channel.

    Differs from the source (checked against its repository, see docs/baselines.md) as follows. In the source, LDPv2 is
    the projector. Here it precedes the projector and keeps the number of channels, so its MLP is a branch of channels
    / 4 after a LayerNorm, in units of each token's root mean square. The last layer of the MLP and the convolution are
    initialized to 0, so that the untrained student equals mean pooling. The source pools 24 x 24 tokens to 12 x 12.
    """

    def __init__(self, channels: int, n_tokens: int, ratio: int) -> None:
        super().__init__(n_tokens, ratio)
        inner = max(channels // NARROWER, 1)
        self.norm = nn.LayerNorm(channels)
        self.enter = nn.Linear(channels, inner)
        self.act = nn.GELU()
        self.leave = nn.Linear(inner, channels)
        self.neighbours = depthwise(channels, bias=True)  # spelled as in the weights of saved students
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize the norm and the first layer as torch does, and the layers that add to the input with 0."""
        self.reset_parts()
        for layer in (self.leave, self.neighbours):
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.mean(self.add(x, self.leave(self.act(self.enter(self.norm(x))))))
        return pooled + convolve(self.neighbours, pooled, self.grid)
