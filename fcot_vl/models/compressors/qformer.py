"""Learned queries that attend to the whole tile: the second baseline of the paper (Table 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class QFormerCompressor(nn.Module):
    """One cross-attention from `n_tokens / ratio` learned queries to the tokens of a tile (after Q-Former).

    The paper describes its baseline as "one cross-attention to sample fixed visual tokens". The Q-Former of BLIP-2,
    which it cites (Li et al. 2023, arXiv 2301.12597), is far larger: 32 queries of width 768 through 12 layers with
    self-attention, every second one with cross-attention. The widths, norm and initialization are ours; the paper does
    not specify them.
    """

    head_width = 64

    def __init__(self, channels: int, n_tokens: int, ratio: int) -> None:
        super().__init__()
        self.n_heads = channels // self.head_width if channels % self.head_width == 0 else 1
        self.queries = nn.Parameter(torch.empty(n_tokens // ratio, channels))
        self.norm = nn.LayerNorm(channels)
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize queries normal (standard deviation 0.02), projections Xavier-uniform, norm weight 1 and bias 0."""
        self.queries.normal_(std=0.02)
        self.norm.reset_parameters()
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(projection.weight)
            projection.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        keys = self.norm(x)
        queries = self.queries.to(x.dtype).expand(x.shape[0], -1, -1)
        q, k, v = (
            projection(states).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for projection, states in ((self.q_proj, queries), (self.k_proj, keys), (self.v_proj, keys))
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return queries + self.out_proj(mixed)
