"""TokenPacker: each low-resolution token looks at the tokens it stands for (Li et al. 2024, arXiv 2407.02392)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.model.compressors.windows import Windows

NARROWER = 4  # channels / 4 in the attention: 1024 of 4096, the source's width
HEAD_WIDTH = 128  # the source's: 8 heads of 1024 channels


class TokenPacker(Windows):
    """The mean of each window is a query, the tokens of the window are its keys and values; what it finds is added.

    Differs from the source (checked against its repository, see docs/peers.md), whose TokenPacker is the projector:
    ours stands in front of it and keeps the channels, so queries, keys and values have channels / 4, and what is found
    is added to the mean through a layer that starts at 0: the untrained student equals mean pooling. In the source,
    what is found goes on alone, into an MLP, which here is the student adaptor. Keys and values there come from layers
    12, 16, 22 and 23 of CLIP's 24 side by side, here from the features the projector reads. One LayerNorm in front and
    one linear layer each stand for the source's two linear layers with GELU and a LayerNorm behind. The query is the
    window's mean, not bilinear (the same for a window of 2 x 2).
    """

    def __init__(self, channels: int, n_tokens: int, ratio: int) -> None:
        super().__init__(n_tokens, ratio)
        inner = max(channels // NARROWER, 1)
        self.n_heads = inner // HEAD_WIDTH if inner % HEAD_WIDTH == 0 else 1
        self.norm = nn.LayerNorm(channels)
        self.q_proj = nn.Linear(channels, inner)
        self.k_proj = nn.Linear(channels, inner, bias=False)  # softmax would not see one
        self.v_proj = nn.Linear(channels, inner)
        self.out_proj = nn.Linear(inner, channels)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Projections Xavier-uniform with bias 0, norm 1 and 0; the output 0: nothing is added yet."""
        self.norm.reset_parameters()
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight)
        self.out_proj.weight.zero_()
        for projection in (self.q_proj, self.v_proj, self.out_proj):
            projection.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        heads = (self.n_heads, -1)
        q = self.q_proj(self.mean(normed)).unflatten(-1, heads)  # [n_tiles, windows, heads, width]
        k = self.split(self.k_proj(normed)).unflatten(-1, heads)  # [n_tiles, windows, ratio, heads, width]
        v = self.split(self.v_proj(normed)).unflatten(-1, heads)
        scores = torch.einsum("nwhc,nwrhc->nwhr", q, k) * q.shape[-1] ** -0.5
        found = torch.einsum("nwhr,nwrhc->nwhc", scores.float().softmax(-1).to(v.dtype), v)
        return self.mean(x) + self.out_proj(found.flatten(2))
