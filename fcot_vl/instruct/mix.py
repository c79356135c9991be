"""The mixture that puts worked answers beside the data they were made from (`docs/sources.md`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from fcot_vl.data.mixture import Mixture

FILE = "mixture.yaml"
PATHS = (
    "folder",
    "internvl",
    "llava",
    "dataset",
    "images",
    "cache",
)  # of an entry, relative to the mixture's file


def write_mixture(output: Path, data: str, samples: Any, made: int, vanilla_ratio: float | None) -> Path:
    """Write `mixture.yaml` beside the worked answers.

    Args:
        output: folder with the shards of worked answers.
        data: what they were made from; of a mixture, its sources are taken over one by one.
        samples: the same, opened.
        made: worked answers there are.
        vanilla_ratio: share of an epoch's records that are vanilla, 0 or more and below 1; None is each of them as
            often as in `data`. Worked answers are always taken once.

    Returns:
        The file. Without a worked answer it holds the data alone.
    """
    times = 1.0
    if vanilla_ratio is not None and made:
        times = vanilla_ratio * made / ((1 - vanilla_ratio) * len(samples))
    path = Path(data)
    content: dict[str, Any] = {}
    if path.suffix in (".yaml", ".yml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if content.get("records") is not None:  # there the weights only say how much beside another source
            sizes = [len(source) for source in samples.sources]
            whole = sum(size * weight for size, weight in zip(sizes, samples.weights, strict=True))
            times *= len(samples) / whole
        entries = [_moved(entry, path.parent, output) for entry in content["sources"]]
    else:
        kind = "folder" if path.is_dir() else "internvl" if isinstance(samples, Mixture) else "llava"
        entries = [_moved({"name": "vanilla", kind: data}, Path(), output)]
    for entry in entries:
        entry["weight"] = entry.get("weight", 1.0) * times
    if vanilla_ratio == 0 and made:
        entries = []
    if made:
        names = {entry["name"] for entry in entries}
        name = next(name for name in ("cot", *(f"cot-{at}" for at in range(2, 100))) if name not in names)
        entries.append({"name": name, "folder": ".", "weight": 1.0})
    mixture: dict[str, Any] = {"sources": entries}
    if content.get("max_skipped") is not None:
        mixture["max_skipped"] = content["max_skipped"]
    head = "# Worked answers beside the data they were made from; a weight is how often a record is seen in an epoch.\n"
    text = head + yaml.safe_dump(mixture, sort_keys=False, allow_unicode=True, width=120)
    (output / FILE).write_text(text, encoding="utf-8")
    return output / FILE


def _moved(entry: dict[str, Any], before: Path, after: Path) -> dict[str, Any]:
    """An entry whose paths are relative to `after` instead of `before`; hub ids and absolute paths stay."""
    moved = dict(entry)
    for key in PATHS:
        if key in moved and not Path(str(moved[key])).is_absolute():
            there = before / str(moved[key])
            if key == "dataset" and not there.exists():
                continue
            moved[key] = os.path.relpath(there.resolve(), after.resolve())
    if "dataset" in moved and "images" not in moved:
        moved["images"] = os.path.relpath(before.resolve(), after.resolve())
    return moved
