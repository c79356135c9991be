"""Build model inputs from questions about images, with the images prepared for a training-free method.

This module combines `data`, `models` and `prune`, which do not depend on each other. Code that runs a model with a
method uses it. The methods `smaller_page` and `fewer_tiles` need other images, which are made here. For every other
method, images are unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fcot_vl.data.collator import join_image_inputs, pad
from fcot_vl.data.tokenization import TokenizedPrompt
from fcot_vl.prune.budget import n_kept
from fcot_vl.prune.fewer_tiles import tile_limit
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.method import IMAGE_METHODS, Method
from fcot_vl.prune.smaller_page import SmallerPageHandle, choose_cells, shrink_page

Images = Sequence[Image.Image]


class InputBuilder:
    """Build batches of inputs for one model and one method.

    Args:
        processor: Processor of the model.
        method: Training-free method.
        pad: Id of the token that pads rows on the left.
    """

    def __init__(self, processor: Any, method: Method, pad: int) -> None:
        self.processor, self.method, self.pad = processor, method, pad

    def visual_tokens(self, images: Images, counts: Sequence[int]) -> int:
        """Return the nominal number of visual tokens kept of images that have `counts` tokens without the method."""
        if self.method.keep is None or not sum(counts):
            return sum(counts)
        if self.method.name not in IMAGE_METHODS:
            return n_kept(self.method.keep, sum(counts))
        spent = self._cells if self.method.name == "smaller_page" else self._tokens_of_fewer_tiles
        return sum(spent(image, n) for image, n in zip(images, counts, strict=True))

    def batch(
        self, prompts: Sequence[TokenizedPrompt], images: Sequence[Images], handle: PruneHandle | None
    ) -> dict[str, Tensor]:
        """Return the model inputs for `prompts` as one batch, padded on the left.

        Args:
            images: Images of each prompt.
            handle: Handle of the applied method. For `smaller_page`, the mask of tokens that are not blank is set on
                it.
        """
        if isinstance(handle, SmallerPageHandle):
            prompts, found = self._with_smaller_images(prompts, images, handle)
        elif self.method.name == "fewer_tiles":
            prompts, found = self._with_fewer_tiles(prompts, images)
        else:
            found = [self.processor.image_inputs(each) for each in images if each]
        inputs = pad([prompt.expand() for prompt in prompts], self.pad, side="left")
        del inputs["labels"]
        return inputs | join_image_inputs(found) | self.processor.prompt_inputs(inputs["input_ids"])

    def _cells(self, image: Image.Image, n_tokens: int) -> int:
        assert self.method.keep is not None
        w, h = choose_cells(image.width, image.height, n_kept(self.method.keep, n_tokens))
        return w * h

    def _with_smaller_images(
        self, prompts: Sequence[TokenizedPrompt], images: Sequence[Images], handle: SmallerPageHandle
    ) -> tuple[list[TokenizedPrompt], list[dict[str, Tensor]]]:
        """Return prompts and images of smaller pages, and pass the mask of tokens that are not blank to the handle."""
        process, per_tile = self.processor.image_processor, int(self.processor.image_seq_length)
        assert self.method.keep is not None
        shrunk, found, handle.kept_per_row = [], [], []
        for prompt, own in zip(prompts, images, strict=True):
            pages = [
                shrink_page(image, n_kept(self.method.keep, count), process.size["height"], per_tile)
                for image, count in zip(own, prompt.counts[1], strict=True)
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

    def _with_fewer_tiles(
        self, prompts: Sequence[TokenizedPrompt], images: Sequence[Images]
    ) -> tuple[list[TokenizedPrompt], list[dict[str, Tensor]]]:
        """Return prompts and images of pages cut into fewer tiles."""
        cut, found = [], []
        for prompt, own in zip(prompts, images, strict=True):
            counts = []
            for image, count in zip(own, prompt.counts[1], strict=True):
                limit = self._tile_limit(image, count)
                counts.append(self._tokens_at(image, limit))
                read = self.processor.image_processor(
                    [image], crop_to_patches=True, max_patches=limit, return_tensors="pt"
                )
                found.append({"pixel_values": read["pixel_values"]})
            cut.append(replace(prompt, counts={1: tuple(counts)}))
        return cut, found

    def _tile_limit(self, image: Image.Image, n_tokens: int) -> int:
        """Return the maximum number of tiles with which a page of `n_tokens` fits the budget."""
        assert self.method.keep is not None
        most = getattr(self.processor.image_processor, "max_patches", None)
        if most is None:
            raise ValueError("fewer_tiles needs InternVL's tiles; this model is of another family")
        return tile_limit(
            lambda limit: self._tokens_at(image, limit), int(most), n_kept(self.method.keep, n_tokens)
        )

    def _tokens_at(self, image: Image.Image, limit: int) -> int:
        options = {"crop_to_patches": True, "max_patches": limit}
        tiles = self.processor.image_processor.get_number_of_image_patches(image.height, image.width, options)
        return int(tiles) * int(self.processor.image_seq_length)

    def _tokens_of_fewer_tiles(self, image: Image.Image, n_tokens: int) -> int:
        return self._tokens_at(image, self._tile_limit(image, n_tokens))
