"""Compressors `V_c` by name: fewer visual tokens per tile, same channels. One file each in `compressors/`.

They sit between pixel shuffle and the adaptor. Shapes: `[n_tiles, n_tokens, channels]` in, `[n_tiles, n_tokens /
ratio, channels]` out; the tokens of a tile are in raster order, so neighbours in the sequence are neighbours in a row.
`conv` and `pooling` take runs of a row, which fits any picture; the `WINDOWED` ones take windows of a square tile,
`qformer` a tile of one size. A tile's output depends on no other tile, and none keeps running statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from fcot_vl.model.compressors.c_abstractor import CAbstractor
from fcot_vl.model.compressors.conv import ConvCompressor
from fcot_vl.model.compressors.conv2d import Conv2dCompressor
from fcot_vl.model.compressors.ldpv2 import LDPv2
from fcot_vl.model.compressors.pooling import PoolingCompressor
from fcot_vl.model.compressors.qformer import QFormerCompressor
from fcot_vl.model.compressors.token_packer import TokenPacker
from fcot_vl.model.compressors.windows import Windows

if TYPE_CHECKING:
    from fcot_vl.model.configuration import FCoTVLConfig


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
    "conv2d": Conv2dCompressor,
    "c_abstractor": CAbstractor,
    "ldpv2": LDPv2,
    "token_packer": TokenPacker,
}
WINDOWED = tuple(name for name, kind in COMPRESSORS.items() if issubclass(kind, Windows))


def build_compressor(config: FCoTVLConfig) -> nn.Module:
    """The compressor that a configuration asks for; the identity (no parameters) at ratio 1."""
    if config.compress_ratio == 1:
        return nn.Identity()
    compressor = COMPRESSORS[config.compressor]
    return compressor(config.visual_channels, config.tokens_per_tile, config.compress_ratio)
