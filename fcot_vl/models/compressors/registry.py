"""Compressors `V_c` by name: fewer visual tokens per tile, same channels. One file per compressor in `compressors/`.

A compressor sits between pixel shuffle and the adaptor. It maps `[n_tiles, n_tokens, channels]` to `[n_tiles, n_tokens
/ ratio, channels]`. The tokens of a tile are in raster order, so neighbors in the sequence are neighbors in a row.
`conv` and `pooling` work on runs of a row, which fits any image. The compressors in `WINDOWED` work on windows of a
square tile, and `qformer` works on tiles of one size. The output for a tile does not depend on other tiles, and no
compressor keeps running statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from fcot_vl.models.compressors.c_abstractor import CAbstractor
from fcot_vl.models.compressors.conv import ConvCompressor
from fcot_vl.models.compressors.conv2d import Conv2dCompressor
from fcot_vl.models.compressors.ldpv2 import LDPv2
from fcot_vl.models.compressors.pooling import PoolingCompressor
from fcot_vl.models.compressors.qformer import QFormerCompressor
from fcot_vl.models.compressors.token_packer import TokenPacker
from fcot_vl.models.compressors.windows import Windows

if TYPE_CHECKING:
    from fcot_vl.models.internvl.configuration import FCoTVLConfig


def fill_rows(rows: Tensor, ratio: int) -> Tensor:
    """Repeat the last token of every row of `[..., columns, channels]` until the ratio divides the row length."""
    missing = -rows.shape[-2] % ratio
    last = rows[..., -1:, :].expand(*rows.shape[:-2], missing, rows.shape[-1])
    return torch.cat([rows, last], dim=-2) if missing else rows


class Compressor(Protocol):
    """Interface of the modules that `build_compressor` returns, in addition to `nn.Module`."""

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
    """Build the compressor of a configuration; at ratio 1 it is the identity, without parameters."""
    if config.compress_ratio == 1:
        return nn.Identity()
    compressor = COMPRESSORS[config.compressor]
    return compressor(config.visual_channels, config.tokens_per_tile, config.compress_ratio)
