"""C-Abstractor: convolution blocks around an average pool (Cha et al. 2024, "Honeybee", arXiv 2312.06742)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.model.compressors.windows import Windows, convolve, depthwise

DEPTH = 3  # blocks on either side of the pool, as the source has them
NARROWER = 4  # channels of the blocks: 1024 of 4096, the source's width


class RegBlock(nn.Module):
    """One block of a RegStage as the source sets it: depthwise 3x3 between two linear layers, with a gate.

    The gate (squeeze and excitation) scales each channel by what its mean over the whole tile says. LayerNorm over the
    channels of a token stands where RegNet has batch statistics, as in the source. Checked against timm's RegStage,
    which the source builds on: order, widths, gate, what has a bias.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(channels // 4, 1)
        self.enter = nn.Linear(channels, channels, bias=False)
        self.enter_norm = nn.LayerNorm(channels)
        self.conv = depthwise(channels, bias=False)
        self.conv_norm = nn.LayerNorm(channels)
        self.gate = nn.Sequential(
            nn.Linear(channels, squeezed), nn.SiLU(), nn.Linear(squeezed, channels), nn.Sigmoid()
        )
        self.leave = nn.Linear(channels, channels, bias=False)
        self.leave_norm = nn.LayerNorm(channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """`[n_tiles, rows * columns, channels]`, in and out."""
        hidden = self.act(self.enter_norm(self.enter(x)))
        hidden = self.act(self.conv_norm(convolve(self.conv, hidden, grid)))
        hidden = hidden * self.gate(hidden.mean(1, keepdim=True))
        return self.act(x + self.leave_norm(self.leave(hidden)))


class CAbstractor(Windows):
    """Three blocks, mean of each window, three blocks, MLP. A token sees its whole tile, through the gates.

    Differs from the source (checked against its repository, see docs/peers.md), whose C-Abstractor is the projector:
    ours stands in front of it, so all of it is a branch of channels / 4 beside the mean of the window; its last layer
    starts at 0, and the untrained student equals mean pooling. A linear layer and a LayerNorm lead into the branch,
    where the source's first block changes the width itself. The source's adaptive pool makes a square number of tokens
    (144 of 576), ours any window. Its learned positions are left out (the ViT has its own).
    """

    def __init__(self, channels: int, n_tokens: int, ratio: int) -> None:
        super().__init__(n_tokens, ratio)
        inner = max(channels // NARROWER, 1)
        self.enter = nn.Linear(channels, inner)
        self.norm = nn.LayerNorm(inner)
        self.before = nn.ModuleList(RegBlock(inner) for _ in range(DEPTH))
        self.after = nn.ModuleList(RegBlock(inner) for _ in range(DEPTH))
        self.readout = nn.Linear(inner, inner)
        self.act = nn.SiLU()
        self.leave = nn.Linear(inner, channels)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """torch's own start of every layer, and 0 for the last: the branch adds nothing yet."""
        self.reset_parts()
        self.leave.weight.zero_()
        self.leave.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.enter(x))
        for block in self.before:
            hidden = block(hidden, (self.side, self.side))
        hidden = self.mean(hidden)
        for block in self.after:
            hidden = block(hidden, self.grid)
        return self.mean(x) + self.leave(self.act(self.readout(hidden)))
