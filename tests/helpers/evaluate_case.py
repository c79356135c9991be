"""Samples that tests of `evaluate` share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcot_vl.data.dataset import Sample
from fcot_vl.synthesize.minidoc import METRICS as MINIDOC_METRICS


def picture(width: int, height: int, seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(
        0, 256, (-(-height // 14), -(-width // 14), 3), dtype=np.uint8
    )
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


def sample(number: int, task: str, size: tuple[int, int], question: str, density: float = 1.5) -> Sample:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "ab"}]
    tiles = {(112, 112): 1, (224, 112): 3, (112, 336): 4}[size]
    return Sample(
        id=f"page-{number}",
        images=[picture(*size, seed=number)],
        messages=messages,
        task=task,
        source="test",
        answers=["ab", "abc"],
        metric=MINIDOC_METRICS[task],
        density=density,
        tiles=tiles,
    )


SAMPLES = [
    sample(0, "forms", (112, 112), "What is the Name?", 0.5),
    sample(1, "dense_pages", (112, 336), "What is the Code of the long question?", 7.9),
    sample(2, "forms", (224, 112), "What is the Total?", 3.0),
    sample(3, "dense_pages", (224, 112), "Where?", 9.0),
    sample(4, "sums", (112, 112), "Apple plus pear?", 2.0),
    sample(5, "forms", (112, 112), "What is the Date of issue?", 1.9),
    sample(6, "forms", (112, 112), "Who?", 1.2),
]
TILES = [1, 4, 3, 3, 1, 1, 1]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
