"""Fewer tiles: the page is cut into fewer tiles until its visual tokens fit the budget.

One of the training-free peers of `fcot_vl.prune`, and the only one that changes nothing in the model: the processor's
own limit on tiles (InternVL's `max_dynamic_patch`) is lowered. Tiles come in whole numbers, so a page usually has fewer
tokens than the budget, and a page of one tile, which cannot be cut less, more; the tokens that were really used are
reported. `smaller_page` meets the budget exactly. A control, no paper's method.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from fcot_vl.prune.engine import decoder_of, install
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.prompt import Prompt


def tile_limit(tokens_at: Callable[[int], int], most: int, budget: int) -> int:
    """The largest limit on tiles, `most` or below, at which a page has at most `budget` visual tokens; else 1.

    tokens_at: visual tokens of the page at a limit. Raises ValueError for a budget below one.
    """
    if budget < 1:
        raise ValueError(f"a page needs at least one visual token, the budget is {budget}.")
    return next((limit for limit in range(most, 1, -1) if tokens_at(limit) <= budget), 1)


def apply_fewer_tiles(model: nn.Module, keep: float) -> PruneHandle:
    """Count the visual tokens of pages cut into fewer tiles until the handle is removed; nothing is dropped.

    keep: the nominal share of the full page's visual tokens that the pages were cut for, (0, 1]. Raises ValueError for
    values out of range.
    """

    def select(prompt: Prompt) -> Tensor:
        return prompt.image_BL

    handle = PruneHandle("fewer_tiles", keep, 0, len(decoder_of(model).layers))
    install(model, handle, select)
    return handle
