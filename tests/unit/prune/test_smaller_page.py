"""The baseline `smaller_page`: its size, where the page lies, and that only blank tokens are dropped."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from prune_case import (
    batch_of,
    make_model,
    naive_row,
    run,
)

from fcot_vl.prune.smaller_page import apply_smaller_page, choose_cells, shrink_page


@pytest.mark.parametrize(
    ("size", "budget"), [((800, 600), 32), ((100, 900), 16), ((500, 500), 1), ((7, 5), 160)]
)
def test_cells_fill_the_budget_at_the_pages_aspect(size: tuple[int, int], budget: int) -> None:
    w, h = choose_cells(*size, budget)
    assert w * h <= budget
    assert (w + 1) * h > budget or w * (h + 1) > budget
    misfit = abs(math.log(w / h * size[1] / size[0]))
    others = [(a, budget // a) for a in range(1, budget + 1)]
    assert misfit <= min(abs(math.log(a / b * size[1] / size[0])) for a, b in others) + 1e-9


def test_shrunken_page_is_whole_tiles_with_the_page_in_the_corner() -> None:
    page = Image.new("RGB", (600, 400), "black")
    small = shrink_page(page, 24, tile_px=32, tokens_per_tile=16)  # cells of 8 px
    assert small.cells == (6, 4)
    assert [tile.size for tile in small.tiles] == [(32, 32)] * 2
    assert int(small.kept.sum()) == 24
    for number, tile in enumerate(small.tiles):
        for cell in range(16):
            x, y = cell % 4 * 8, cell // 4 * 8
            black = tile.crop((x, y, x + 8, y + 8)).getextrema() == ((0, 0),) * 3
            assert black == bool(small.kept[number * 16 + cell])
    with pytest.raises(ValueError, match="uncompressed"):
        shrink_page(page, 24, tile_px=32, tokens_per_tile=8)
    with pytest.raises(ValueError, match="at least one"):
        shrink_page(page, 0, tile_px=32, tokens_per_tile=16)


def test_visual_tokens_of_a_tile_run_row_by_row() -> None:
    """`shrink_page` relies on token i of a tile showing the cell in row i // side, column i % side."""
    model = make_model()
    patches = torch.arange(64).float().view(1, 8, 8, 1).expand(-1, -1, -1, 4).contiguous()
    shuffled = model.model.pixel_shuffle(patches, 0.5).reshape(16, 16)
    cells = [{int(v) for v in row} for row in shuffled]
    for i, cell in enumerate(cells):
        row, column = 2 * (i // 4), 2 * (i % 4)
        assert cell == {8 * (row + a) + column + b for a in (0, 1) for b in (0, 1)}


def test_smaller_page_drops_exactly_the_blank() -> None:
    model = make_model()
    inputs = batch_of((2, 3, 4), (1, 2, 2))
    masks = [torch.arange(32) % 3 != 0, torch.arange(16) < 5]
    with apply_smaller_page(model, 0.5) as handle:
        with pytest.raises(ValueError, match="kept_per_row"):
            run(model, inputs)
        handle.kept_per_row = masks
        new, logits, _ = run(model, inputs)
        assert handle.kept == [21, 5]
    for row, kept in enumerate(masks):
        expected = naive_row(model, inputs, row, kept, 0, new[row, :-1])
        torch.testing.assert_close(logits[row], expected, atol=2e-4, rtol=2e-4)
