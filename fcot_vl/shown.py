"""Questions about pictures as one batch, the pages as a training-free method shows them to the model.

Above `data`, `model` and `prune`, which do not know each other; below what runs a model with a method. A smaller page
and fewer tiles are other pictures and are made here; every other method is shown the page as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fcot_vl.data.collate import Prompt, join_pictures, pad
from fcot_vl.prune.budget import n_kept
from fcot_vl.prune.fewer_tiles import tile_limit
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.method import OTHER_PAGE, Method
from fcot_vl.prune.smaller_page import SmallerPageHandle, choose_cells, shrink_page

Pictures = Sequence[Image.Image]


class Shown:
    """Pages as `method` shows them to the model of `processor`.

    pad: the token that fills rows up on the left.
    """

    def __init__(self, processor: Any, method: Method, pad: int) -> None:
        self.processor, self.method, self.pad = processor, method, pad

    def visual_tokens(self, pictures: Pictures, counts: Sequence[int]) -> int:
        """Visual tokens kept by name, of pictures that have `counts` when they are shown whole."""
        if self.method.keep is None or not sum(counts):
            return sum(counts)
        if self.method.name not in OTHER_PAGE:
            return n_kept(self.method.keep, sum(counts))
        spent = self._cells if self.method.name == "smaller_page" else self._tokens_of_fewer_tiles
        return sum(spent(image, n) for image, n in zip(pictures, counts, strict=True))

    def batch(
        self, prompts: Sequence[Prompt], pictures: Sequence[Pictures], handle: PruneHandle | None
    ) -> dict[str, Tensor]:
        """What the model takes to answer `prompts` together, padded on the left.

        pictures: of each prompt. handle: the applied method; a smaller page's blank is told to it.
        """
        if isinstance(handle, SmallerPageHandle):
            prompts, found = self._smaller(prompts, pictures, handle)
        elif self.method.name == "fewer_tiles":
            prompts, found = self._fewer(prompts, pictures)
        else:
            found = [self.processor.picture_inputs(images) for images in pictures if images]
        inputs = pad([prompt.expand() for prompt in prompts], self.pad, side="left")
        del inputs["labels"]
        return inputs | join_pictures(found) | self.processor.prompt_inputs(inputs["input_ids"])

    def _cells(self, image: Image.Image, n_tokens: int) -> int:
        assert self.method.keep is not None
        w, h = choose_cells(image.width, image.height, n_kept(self.method.keep, n_tokens))
        return w * h

    def _smaller(
        self, prompts: Sequence[Prompt], pictures: Sequence[Pictures], handle: SmallerPageHandle
    ) -> tuple[list[Prompt], list[dict[str, Tensor]]]:
        """The prompts and pictures of smaller pages; which of their tokens are not blank is told to the handle."""
        process, per_tile = self.processor.image_processor, int(self.processor.image_seq_length)
        assert self.method.keep is not None
        shrunk, found, handle.kept_per_row = [], [], []
        for prompt, images in zip(prompts, pictures, strict=True):
            pages = [
                shrink_page(image, n_kept(self.method.keep, count), process.size["height"], per_tile)
                for image, count in zip(images, prompt.counts[1], strict=True)
            ]
            shrunk.append(replace(prompt, counts={1: tuple(len(page.tiles) * per_tile for page in pages)}))
            tiles = [tile for page in pages for tile in page.tiles]
            if tiles:
                read = process(tiles, crop_to_patches=False, return_tensors="pt")
                found.append({"pixel_values": read["pixel_values"]})
            handle.kept_per_row.append(
                torch.cat([torch.zeros(0, dtype=torch.bool), *(p.kept for p in pages)])
            )
        return shrunk, found

    def _fewer(
        self, prompts: Sequence[Prompt], pictures: Sequence[Pictures]
    ) -> tuple[list[Prompt], list[dict[str, Tensor]]]:
        """The prompts and pictures of pages cut into fewer tiles."""
        cut, found = [], []
        for prompt, images in zip(prompts, pictures, strict=True):
            counts = []
            for image, count in zip(images, prompt.counts[1], strict=True):
                limit = self._tile_limit(image, count)
                counts.append(self._tokens_at(image, limit))
                read = self.processor.image_processor(
                    [image], crop_to_patches=True, max_patches=limit, return_tensors="pt"
                )
                found.append({"pixel_values": read["pixel_values"]})
            cut.append(replace(prompt, counts={1: tuple(counts)}))
        return cut, found

    def _tile_limit(self, image: Image.Image, n_tokens: int) -> int:
        """The most tiles that a page of `n_tokens` may be cut into to fit the budget."""
        assert self.method.keep is not None
        most = getattr(self.processor.image_processor, "max_patches", None)
        if most is None:
            raise ValueError("fewer tiles: laid out for InternVL's tiles; this model is of another family.")
        return tile_limit(
            lambda limit: self._tokens_at(image, limit), int(most), n_kept(self.method.keep, n_tokens)
        )

    def _tokens_at(self, image: Image.Image, limit: int) -> int:
        options = {"crop_to_patches": True, "max_patches": limit}
        tiles = self.processor.image_processor.get_number_of_image_patches(image.height, image.width, options)
        return int(tiles) * int(self.processor.image_seq_length)

    def _tokens_of_fewer_tiles(self, image: Image.Image, n_tokens: int) -> int:
        return self._tokens_at(image, self._tile_limit(image, n_tokens))
