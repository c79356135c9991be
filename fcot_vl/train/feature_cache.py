"""Cache on disk of the ViT features of every training image, computed once.

The cache needs a frozen ViT, which is always the case in re-alignment and optional in post-training. It is a stage
folder of its own that holds shards of bfloat16 features. Each shard is written completely or not at all, so a resumed
pass computes only the missing shards. A cache made by another ViT, from other data or with another tiling is refused.
Several runs may share one cache.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils.logging import tqdm

from fcot_vl.common.files import replacing
from fcot_vl.common.stage import open_stage
from fcot_vl.data.dataset import Sample

logger = logging.getLogger(__name__)

SHARD = 256  # pages in one file
BATCH_TILES = 32  # tiles in one pass of the ViT
BLANK = "blank"  # key in a shard's metadata: pages whose pixels could not be decoded


class FeatureCache(Sequence[Tensor]):
    """Features of each page, `[n_tiles, tokens_per_tile, visual_channels]` in float32, read from disk on access."""

    def __init__(self, folder: Path, pages: int) -> None:
        self._pages = pages
        self._open = lru_cache(maxsize=256)(lambda start: safe_open(_shard(folder, start), framework="pt"))

    def __len__(self) -> int:
        return self._pages

    def __getitem__(self, index: Any) -> Any:
        return self._open(index - index % SHARD).get_tensor(str(index)).float()

    def is_blank(self, index: int) -> bool:
        """Return True if the page's pixels could not be decoded, so that its features are those of a blank image."""
        blank: str = (self._open(index - index % SHARD).metadata() or {}).get(BLANK, "")
        return str(index) in blank.split(",")


def cache_features(
    folder: Path,
    visual_features: Callable[..., Tensor],
    samples: Sequence[Sample],
    processor: Any,
    inputs: dict[str, str],
) -> FeatureCache:
    """Compute the features of all pages that are not in `folder` yet.

    Args:
        folder: Folder of the cache, created if missing.
        visual_features: Function `[n_tiles, 3, height, width]` -> `[n_tiles, tokens_per_tile, visual_channels]`. It
            takes the outputs of the processor's `image_inputs` other than pixels as keyword arguments.
        samples: Pages in the order of the data folder.
        processor: Processor that tiles and normalizes the images.
        inputs: Hashes of what the features depend on (ViT, data).

    Raises:
        StageError: If the folder holds features made by another ViT, from other data or with another tiling.
    """
    settings = {"pages": len(samples), "tiling": processor.image_processor.to_dict()}
    stage = open_stage(folder, "features", settings, inputs, wait=True)
    if not stage.done:
        starts = range(0, len(samples), SHARD)
        missing = [start for start in starts if not _shard(folder, start).exists()]
        logger.info(f"features: the ViT reads {len(samples):,} pages once, kept in {folder}")
        with tqdm(
            total=len(samples), initial=len(samples) - _pages(missing, samples), unit="page"
        ) as progress:
            for start in missing:
                shard, blank = {}, []
                for index in range(start, min(start + SHARD, len(samples))):
                    sample, is_blank = _readable(samples, index)
                    shard[str(index)] = _features(sample, visual_features, processor)
                    blank += [str(index)] * is_blank
                    progress.update()
                with replacing(_shard(folder, start), str(os.getpid())) as partial:  # runs may share a cache
                    save_file(shard, partial, metadata={BLANK: ",".join(blank)} if blank else None)
        size = sum(_shard(folder, start).stat().st_size for start in starts)
        stage.finish({"pages": len(samples), "bytes": size})
    return FeatureCache(folder, len(samples))


def _readable(samples: Sequence[Sample], index: int) -> tuple[Sample | None, bool]:
    """Return a page, and True if its images were replaced by white ones of the same sizes.

    The page is None if the sample cannot be read at all.
    """
    try:
        sample = samples[index]
    except Exception:  # `TrainingDataset` gets the same error, and skips and lists the sample
        return None, False
    try:
        for image in sample.images:
            image.load()
    except Exception:  # damaged bytes make decoders raise nearly any error
        white = [Image.new("RGB", image.size, "white") for image in sample.images]
        return replace(sample, images=white), True
    return sample, False


@torch.no_grad()
def _features(sample: Sample | None, visual_features: Callable[..., Tensor], processor: Any) -> Tensor:
    """Compute the features of one page.

    Each page is processed alone, so its features depend neither on neighboring pages nor on where a pass was
    interrupted. The result is empty for a page that cannot be read or has no image; training skips it.
    """
    if sample is None or not sample.images:
        return torch.zeros(0, dtype=torch.bfloat16)
    inputs = dict(processor.image_inputs(sample.images))
    pixels, layout = inputs.pop("pixel_values"), inputs
    if layout:  # this family processes whole images
        parts = [visual_features(pixels, **layout)]
    else:
        parts = [visual_features(part) for part in pixels.split(BATCH_TILES)]
    return torch.cat(parts).to("cpu", torch.bfloat16)


def _pages(starts: list[int], samples: Sequence[Sample]) -> int:
    return sum(min(start + SHARD, len(samples)) - start for start in starts)


def _shard(folder: Path, start: int) -> Path:
    return folder / f"features-{start:08d}.safetensors"
