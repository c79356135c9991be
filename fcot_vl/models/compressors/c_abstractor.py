"""C-Abstractor: convolution blocks around an average pool (Cha et al. 2024, "Honeybee", arXiv 2312.06742)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.models.compressors.windows import Windows, convolve, depthwise

DEPTH = 3  # blocks on either side of the pool, as in the source
NARROWER = 4  # the blocks have channels / 4: 1024 of 4096, the width in the source


class RegBlock(nn.Module):
    """One block of a RegStage as configured by the source: depthwise 3x3 between two linear layers, with a gate.

    The gate (squeeze and excitation) scales each channel by a function of the channel means over the whole tile. As in
    the source, LayerNorm over the channels of a token replaces the batch statistics of RegNet. Checked against timm's
    RegStage, on which the source builds: order, widths, gate, and which layers have a bias.
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
        """Map `[n_tiles, rows * columns, channels]` to the same shape."""
        hidden = self.act(self.enter_norm(self.enter(x)))
        hidden = self.act(self.conv_norm(convolve(self.conv, hidden, grid)))
        hidden = hidden * self.gate(hidden.mean(1, keepdim=True))
        return self.act(x + self.leave_norm(self.leave(hidden)))


class CAbstractor(Windows):
    """Three blocks, mean of each window, three blocks, MLP. Through the gates, a token sees its whole tile.

    Differs from the source (checked against its repository, see docs/baselines.md) as follows. In the source, the
    C-Abstractor is the projector. Here it precedes the projector, so all of it is a branch of channels / 4 next to the
    mean of the window, in units of the mean's root mean square. The last layer of the branch is initialized to 0, so
    that the untrained student equals mean pooling. A linear layer and a LayerNorm lead into the branch; in the source,
    the first block changes the width itself. The adaptive pool of the source makes a square number of tokens (144 of
    576); here any window is possible. The learned positions of the source are left out because the ViT has its own.
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
        """Initialize every layer as torch does and the last one with 0, so that the branch adds nothing at first."""
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
        return self.add(self.mean(x), self.leave(self.act(self.readout(hidden))))
