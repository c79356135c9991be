"""Compressors `V_c`: fewer visual tokens per tile, same channels.

They sit between pixel shuffle and the adaptor. Shapes: `[n_tiles, n_tokens, channels]` in, `[n_tiles, n_tokens /
ratio, channels]` out; the tokens of a tile are in raster order, so neighbours in the sequence are neighbours in a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from fcot_vl.model.configuration import FCoTVLConfig


class ConvCompressor(nn.Conv1d):
    """1-D convolution along the token sequence, kernel = stride = ratio, dense over channels (paper, section 3).

    Starts as the mean over the taps, so that an untrained student equals mean pooling. The paper leaves the start
    open; this one is ours.
    """

    def __init__(self, channels: int, n_tokens: int, ratio: int) -> None:
        super().__init__(channels, channels, kernel_size=ratio, stride=ratio)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Mean over the taps: weight[o, i, k] = 1/ratio where o == i, else 0; bias 0."""
        eye = torch.eye(self.out_channels, dtype=self.weight.dtype, device=self.weight.device)
        self.weight.copy_(eye.unsqueeze(-1) / self.kernel_size[0])
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class PoolingCompressor(nn.Module):
    """Mean of each run of `ratio` tokens; no parameters."""

    def __init__(self, channels: int, n_tokens: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio

    def reset_parameters(self) -> None:
        """Nothing to reset."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.ratio)).mean(2)


class QFormerCompressor(nn.Module):
    """One cross-attention from `n_tokens / ratio` learned queries to the tokens of a tile (after Q-Former)."""

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
        """Queries normal with deviation 0.02, projections Xavier-uniform, norm 1 and 0."""
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


def fill_rows(rows: Tensor, ratio: int) -> Tensor:
    """`[..., columns, channels]` with the last token of every row repeated until the ratio divides the row."""
    missing = -rows.shape[-2] % ratio
    last = rows[..., -1:, :].expand(*rows.shape[:-2], missing, rows.shape[-1])
    return torch.cat([rows, last], dim=-2) if missing else rows


class Compressor(Protocol):
    """What `build_compressor` returns, beside being an `nn.Module`."""

    def reset_parameters(self) -> None: ...


COMPRESSORS: dict[str, type[nn.Module]] = {
    "conv": ConvCompressor,
    "pooling": PoolingCompressor,
    "qformer": QFormerCompressor,
}


def build_compressor(config: FCoTVLConfig) -> nn.Module:
    """The compressor that a configuration asks for; the identity (no parameters) at ratio 1."""
    if config.compress_ratio == 1:
        return nn.Identity()
    compressor = COMPRESSORS[config.compressor]
    return compressor(config.visual_channels, config.tokens_per_tile, config.compress_ratio)
