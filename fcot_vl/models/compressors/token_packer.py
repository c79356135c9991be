"""TokenPacker: each low-resolution token attends to the tokens it replaces (Li et al. 2024, arXiv 2407.02392)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcot_vl.models.compressors.windows import Windows

NARROWER = 4  # the attention has channels / 4: 1024 of 4096, the width in the source
HEAD_WIDTH = 128  # as in the source: 8 heads of 1024 channels


class TokenPacker(Windows):
    """Cross-attention from the mean of each window (query) to the tokens of the window, added to the mean.

    Differs from the source (checked against its repository, see docs/baselines.md) as follows. In the source,
    TokenPacker is the projector. Here it precedes the projector and keeps the number of channels, so queries, keys and
    values have channels / 4. The output is added to the mean, in units of the mean's root mean square, through a layer
    initialized to 0, so that the untrained student equals mean pooling. In the source, the output of the attention
    alone enters an MLP, which here is the student adaptor. There, keys and values are the concatenated features of
    layers 12, 16, 22 and 23 of CLIP's 24; here, they are the features that the projector reads. For queries, keys and
    values, one shared LayerNorm and one linear layer each replace the source's two linear layers with GELU and a final
    LayerNorm. The query is the mean of the window instead of bilinear (equal for a window of 2 x 2).
    """

    def __init__(self, channels: int, n_tokens: int, ratio: int) -> None:
        super().__init__(n_tokens, ratio)
        inner = max(channels // NARROWER, 1)
        self.n_heads = inner // HEAD_WIDTH if inner % HEAD_WIDTH == 0 else 1
        self.norm = nn.LayerNorm(channels)
        self.q_proj = nn.Linear(channels, inner)
        self.k_proj = nn.Linear(channels, inner, bias=False)  # a bias would cancel in the softmax
        self.v_proj = nn.Linear(channels, inner)
        self.out_proj = nn.Linear(inner, channels)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize projections Xavier-uniform with bias 0, norm weight 1 and bias 0, and the output layer with 0."""
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
        return self.add(self.mean(x), self.out_proj(found.flatten(2)))
