"""The mixture that puts worked answers beside the data they were made from (`docs/sources.md`)."""

from __future__ import annotations

from pathlib import Path

from fcot_vl.data.resample_mixture import Part, take_apart, write_mixture
from fcot_vl.data.sample import SampleFolder

FILE = "mixture.yaml"
HEADING = (
    "Worked answers beside the data they were made from.",
    "A weight is how often a record is seen in an epoch: another ratio is another weight.",
)


def mix(output: Path, data: str, made: int, vanilla_ratio: float | None, seed: int) -> Path:
    """Write `mixture.yaml` beside the worked answers.

    Args:
        output: folder with the shards of worked answers.
        data: what they were made from; its entries are taken over one by one.
        made: worked answers there are.
        vanilla_ratio: share of an epoch's records that are vanilla, 0 or more and below 1; None is each of them as
            often as in `data`. Worked answers are always taken once.
        seed: draws where `data` is a mixture with weights that are not whole.

    Returns:
        The file. Without a worked answer it holds the data alone.
    """
    parts, settings = take_apart(Path(data), seed)
    whole = sum(part.weight * len(part.records) for part in parts)
    # With `records` a mixture's weights only say how much beside another source: here they say how often.
    vanilla = settings.pop("records", None) or whole
    if vanilla_ratio is not None and made:
        vanilla = vanilla_ratio * made / (1 - vanilla_ratio)
    weights = {part.group: part.weight * vanilla / whole for part in parts}
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
