"""Small data files as other projects write them, for the tests of sources, mixtures and labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(path: Path, width: int = 60, height: int = 40, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def cut_short(path: Path) -> Path:
    """A picture whose header is whole and whose pixels are not."""
    picture(path, 120, 100)
    path.write_bytes(path.read_bytes()[:-5000])
    return path


def talk(*texts: str) -> list[dict[str, str]]:
    """Turns of human and gpt."""
    return [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(texts)]


def record(name: str, image: Any, *texts: str) -> dict[str, Any]:
    return {"id": name, "image": image, "conversations": talk(*texts)}


def write_lines(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
    path.write_text("".join(line + "\n" for line in lines))
    return path


def llava_file(folder: Path, records: int = 4) -> Path:
    """A LLaVA JSON with a picture a record, in `images/`."""
    found = []
    for at in range(records):
        picture(folder / "images" / f"{at}.png", seed=at)
        found.append(record(f"r{at}", f"images/{at}.png", "<image>\nRead.", f"text {at}"))
    path = folder / "chat.json"
    path.write_text(json.dumps(found))
    return path
