"""Fewer tiles: cut the page into fewer tiles until its visual tokens fit the budget.

This training-free baseline of `fcot_vl.prune` is the only one that changes nothing in the model: it lowers the tile
limit of the processor (InternVL's `max_dynamic_patch`). The number of tiles is an integer, so a page usually has fewer
tokens than the budget. A page of one tile, which cannot be cut into fewer tiles, has more. The number of tokens that
were really used is reported. `smaller_page` meets the budget exactly. This method is a control and comes from no paper.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.hooks import decoder_of, install
from fcot_vl.prune.selection import PrefillTokens


def tile_limit(tokens_at: Callable[[int], int], most: int, budget: int) -> int:
    """Return the largest tile limit, at most `most`, at which a page has at most `budget` visual tokens; else 1.

    Args:
        tokens_at: Function that returns the number of visual tokens of the page at a limit.
        most: Largest limit to consider.
        budget: Number of visual tokens.

    Raises:
        ValueError: If the budget is below one.
    """
    if budget < 1:
        raise ValueError(f"a page needs at least one visual token, the budget is {budget}.")
    return next((limit for limit in range(most, 1, -1) if tokens_at(limit) <= budget), 1)


def apply_fewer_tiles(model: nn.Module, keep: float) -> PruneHandle:
    """Count the visual tokens of pages cut into fewer tiles until the handle is removed; nothing is dropped.

    Args:
        model: Model to count in.
        keep: Nominal share of the full page's visual tokens that the pages were cut for, (0, 1].

    Raises:
        ValueError: If a value is out of range.
    """

    def select(prefill: PrefillTokens) -> Tensor:
        return prefill.image_BL

    handle = PruneHandle("fewer_tiles", keep, 0, len(decoder_of(model).layers))
    install(model, handle, select)
    return handle
