"""A smaller page: spend the budget by showing the whole page at a lower resolution.

This is the simplest training-free baseline of `fcot_vl.prune`: an exact version of `fewer_tiles`. The number of tiles
is an integer, but budgets are not multiples of a tile. The page is therefore scaled to w x h token cells within the
budget, where one cell is the square of pixels of one visual token. It is placed on a blank canvas of whole tiles
without a thumbnail. The blank tokens of the canvas are dropped before the first decoder layer, so that exactly w x h
visual tokens reach it.

`shrink_page` makes the tiles, `apply_smaller_page` drops the blank tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.hooks import decoder_of, install
from fcot_vl.prune.selection import PrefillTokens


@dataclass(frozen=True)
class SmallerPage:
    """A page shrunk to a budget.

    Attributes:
        tiles: PIL images of tile size, row by row.
        kept: Mask, bool [len(tiles) * tokens_per_tile], False on blank canvas.
        cells: (width, height) of the page in token cells; kept.sum() == width * height.
    """

    tiles: list[Image.Image]
    kept: Tensor
    cells: tuple[int, int]


def choose_cells(width: int, height: int, budget: int) -> tuple[int, int]:
    """Choose cells (w, h) with w * h <= budget and the aspect ratio closest to that of the page.

    Neither w nor h can be increased within the budget.

    Raises:
        ValueError: If the budget is below one.
    """
    if budget < 1:
        raise ValueError(f"a page needs at least one visual token, the budget is {budget}.")
    pairs = {(budget // h, h) for h in range(1, budget + 1)}
    pairs |= {(w, h) for h, w in pairs}

    def misfit(cells: tuple[int, int]) -> tuple[float, int, tuple[int, int]]:
        w, h = cells
        return abs(math.log(w * height / (h * width))), -w * h, cells

    return min(pairs, key=misfit)


def shrink_page(page: Image.Image, budget: int, tile_px: int, tokens_per_tile: int) -> SmallerPage:
    """Shrink the page to at most `budget` visual tokens, as whole tiles.

    Args:
        page: Page to shrink.
        budget: Number of visual tokens; the result has this number or slightly fewer.
        tile_px: Side of a tile in pixels.
        tokens_per_tile: Number of visual tokens that the model makes of one tile, a square number.

    Raises:
        ValueError: If tiles do not divide into square cells, or the budget is below one.
    """
    side = math.isqrt(tokens_per_tile)
    if side * side != tokens_per_tile or tile_px % side:
        raise ValueError(
            f"a tile of {tile_px} px with {tokens_per_tile} visual tokens has no square cells: "
            "a smaller page needs the uncompressed model."
        )
    cell = tile_px // side
    w, h = choose_cells(page.width, page.height, budget)
    columns, rows = -(-w // side), -(-h // side)
    canvas = Image.new("RGB", (columns * tile_px, rows * tile_px), "white")
    canvas.paste(page.convert("RGB").resize((w * cell, h * cell), Image.Resampling.BICUBIC))
    kept = torch.zeros(rows * side, columns * side, dtype=torch.bool)
    kept[:h, :w] = True
    tiles, masks = [], []
    for row in range(rows):
        for column in range(columns):
            left, top = column * tile_px, row * tile_px
            tiles.append(canvas.crop((left, top, left + tile_px, top + tile_px)))
            masks.append(kept[row * side : (row + 1) * side, column * side : (column + 1) * side].flatten())
    return SmallerPage(tiles, torch.cat(masks), (w, h))


class SmallerPageHandle(PruneHandle):
    """Handle of shrunken pages.

    Attributes:
        kept_per_row: `SmallerPage.kept` of each row, in order; must be set before every prefill.
    """

    kept_per_row: list[Tensor]


def apply_smaller_page(model: nn.Module, keep: float) -> SmallerPageHandle:
    """Drop the blank canvas of shrunken pages before the first decoder layer until the handle is removed.

    Args:
        model: Model to prune.
        keep: Nominal share of the full page's visual tokens that the pages were shrunk to. The dropped tokens depend
            only on `handle.kept_per_row`.

    Raises:
        ValueError: At a prefill whose rows do not match `kept_per_row`.
    """
    handle = SmallerPageHandle("smaller_page", keep, 0, len(decoder_of(model).layers))
    handle.kept_per_row = []

    def select(prefill: PrefillTokens) -> Tensor:
        counts = prefill.counts()
        if counts != [len(kept) for kept in handle.kept_per_row]:
            raise ValueError(
                f"the rows have {counts} visual tokens, handle.kept_per_row describes "
                f"{[len(kept) for kept in handle.kept_per_row]}: set it before every prefill."
            )
        kept_BL = torch.zeros_like(prefill.image_BL)
        kept_BL[prefill.image_BL] = torch.cat(handle.kept_per_row).to(kept_BL.device)
        return kept_BL

    install(model, handle, select)
    return handle
