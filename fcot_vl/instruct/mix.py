"""Mixture of worked answers and the data they were made from (`docs/sources.md`)."""

from __future__ import annotations

from pathlib import Path

from fcot_vl.data.dataset import SampleFolder
from fcot_vl.data.mixture_file import Part, take_apart, write_mixture

FILE = "mixture.yaml"
HEADING = (
    "Worked answers beside the data they were made from.",
    "A weight is the number of times each sample is seen in an epoch; change it to change the ratio.",
)


def mix(output: Path, data: str, made: int, vanilla_ratio: float | None, seed: int) -> Path:
    """Write `mixture.yaml` to the folder of the worked answers.

    Args:
        output: Folder with the shards of worked answers.
        data: Source data of the worked answers. Its entries are copied one by one.
        made: Number of worked answers.
        vanilla_ratio: Share of vanilla samples in an epoch, at least 0 and below 1. None takes each of them as often as
            in `data`. Worked answers are always taken once.
        seed: Seed for drawing samples if `data` is a mixture with fractional weights.

    Returns:
        Path of the file. Without worked answers, the mixture has only the data.
    """
    parts, settings = take_apart(Path(data), seed)
    total = sum(part.weight * len(part.samples) for part in parts)
    # With `records`, the weights of a mixture are only relative to other sources. Here they are absolute.
    vanilla = settings.pop("records", None) or total
    if vanilla_ratio is not None and made:
        vanilla = vanilla_ratio * made / (1 - vanilla_ratio)
    weights = {part.group: part.weight * vanilla / total for part in parts}
    parts = parts if vanilla else []
    comments: dict[str, str] = {}
    if made:
        name = next(name for name in ("cot", *(f"cot-{at}" for at in range(2, 1000))) if name not in weights)
        parts = [
            *parts,
            Part(name, {"name": name, "folder": str(output.resolve())}, 1.0, SampleFolder(output)),
        ]
        weights[name], comments[name] = 1.0, "worked answers"
    write_mixture(output / FILE, parts, weights, comments, settings, HEADING)
    return output / FILE
