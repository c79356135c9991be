"""Signs and labels: draws one of eight sorts."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fcot_vl.synthesize.documents.board import Board
from fcot_vl.synthesize.documents.kinds.labels import price_tag, product_label, shipping_label
from fcot_vl.synthesize.documents.kinds.street_signs import (
    door_sign,
    notice,
    opening_hours,
    road_sign,
    shop_sign,
)
from fcot_vl.synthesize.documents.page import Page
from fcot_vl.synthesize.documents.typefaces import Family
from fcot_vl.synthesize.documents.words import Split

_WIDE = ((2, 1), (2, 1), (4, 2), (4, 2), (3, 1), (3, 2), (3, 2), (4, 3), (4, 1), (5, 2), (2, 2))
_TALL = ((1, 2), (2, 3), (2, 3), (3, 4), (2, 2), (3, 3), (1, 1), (2, 4))
_ANY = ((1, 1), (2, 2), (2, 2), (3, 3), (3, 2), (2, 3), (4, 3), (3, 4), (2, 1), (4, 2))
# Sort: possible columns and rows of tiles.
_SORTS = (
    (shop_sign, _WIDE),
    (door_sign, (*_WIDE, *_TALL)),
    (road_sign, (*_WIDE, (3, 3))),
    (notice, _ANY),
    (opening_hours, _TALL),
    (price_tag, _ANY),
    (product_label, (*_ANY, *_TALL)),
    (shipping_label, ((2, 3), (2, 3), (3, 4), (3, 3), (4, 3), (3, 2))),
)


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Draw one sign or label; one with fewer than five characters is drawn again."""
    draw, grids = rng.choice(_SORTS)
    while True:
        board = Board("sign", rng, split, families, grids)
        draw(board)
        if board.canvas.printed >= 5:
            return board.finish()
