"""Benchmarks in small, for tests: the rows that lmms-eval was asked about, as local datasets with pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value
from datasets import Image as Picture
from PIL import Image

RECORDED = Path(__file__).parents[1] / "data" / "lmms-eval"


def recorded(name: str) -> dict[str, Any]:
    """What `tools/record_lmms_eval.py` kept of a benchmark."""
    found: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return found


def png(seed: int, size: tuple[int, int] = (112, 112)) -> bytes:
    """A coarse random picture as a PNG file."""
    width, height = size
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 14, width // 14, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def dataset(
    name: str, rows: int | None = None, broken: tuple[int, ...] = (), cut: tuple[int, ...] = ()
) -> Dataset:
    """Recorded rows with pictures of their own, of two sizes.

    broken: rows whose picture is none. cut: rows whose picture ends behind its header.
    """
    found = recorded(name)["rows"][:rows]
    pictures = [png(i, (224, 112) if i % 4 == 1 else (112, 112)) for i in range(len(found))]
    for at in broken:
        pictures[at] = b"no picture"
    for at in cut:
        pictures[at] = pictures[at][:60]
    columns = {key: _feature(value) for key, value in found[0].items()}
    made = [
        {**row, "image": {"bytes": picture, "path": None}}
        for row, picture in zip(found, pictures, strict=True)
    ]
    return Dataset.from_list(made, features=Features({**columns, "image": Picture()}))


def _feature(value: Any) -> Any:
    if isinstance(value, list):
        return List(_feature(value[0]))
    return Value("int64" if isinstance(value, int) else "string")
