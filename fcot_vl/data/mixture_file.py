"""Split data into one mixture entry per group, and write the entries as a mixture with other weights.

`resample.py` computes the weights. This module writes the file that a person reads and edits afterwards.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fcot_vl.common.files import replacing
from fcot_vl.data.dataset import SampleFolder, Samples, TaskFolder
from fcot_vl.data.mixture import Mixture
from fcot_vl.data.sampling_weights import subset_counts
from fcot_vl.data.sources.conversations import ConversationFile, open_internvl
from fcot_vl.data.sources.open_data import open_data

LOOKED_AT = 64  # maximum number of samples per group whose answers are measured
Settings = dict[str, Any]  # settings of a mixture file other than its sources


@dataclass(frozen=True)
class Part:
    """Entry of a mixture that contains one group.

    Attributes:
        group: Name that its losses are logged under (see `groups`).
        entry: The entry without its weight, with absolute paths.
        weight: Current weight of its samples.
        samples: Samples of the entry. For an entry of a `Mixture`, these are the samples of its source.
    """

    group: str
    entry: dict[str, Any]
    weight: float
    samples: Samples

    def answers(self) -> list[str]:
        """Return the answers of some of its samples, evenly spaced."""
        found = []
        for at in range(0, len(self.samples), max(1, len(self.samples) // LOOKED_AT)):
            try:
                messages = self.samples[at].messages
            except (ValueError, OSError):  # training will skip and report this sample
                continue
            found.append("".join(turn["content"] for turn in messages if turn["role"] == "assistant"))
        return found


def take_apart(data: Path, seed: int = 0) -> tuple[list[Part], Settings]:
    """Split the data at a path into one entry per group, and return them with the other settings of the mixture.

    Together the entries equal what `open_data` reads at the path. A folder with several tasks becomes one entry per
    task. An InternVL meta file becomes one entry per source.
    """
    data = Path(data).resolve()
    if data.suffix in (".yaml", ".yml"):
        return _of_mixture(data, seed)
    if data.is_dir():
        return _of_folder("", {"name": data.name, "folder": str(data)}, 1.0, SampleFolder(data)), {}
    samples = open_data(data, seed)
    if isinstance(samples, Mixture):
        return [_of_file(source.name, source, weight) for source, weight in open_internvl(data)], {}
    assert isinstance(samples, ConversationFile)
    return [_of_file(samples.name, samples, 1.0)], {}


def _of_mixture(data: Path, seed: int) -> tuple[list[Part], Settings]:
    opened = open_data(data, seed)
    assert isinstance(opened, Mixture)
    content = yaml.safe_load(data.read_text(encoding="utf-8"))
    sources = dict(zip(opened.names, opened.sources, strict=True))
    parts: list[Part] = []
    for entry in content["sources"]:
        name, weight = entry["name"], float(entry.get("weight", 1.0))
        plain = {key: value for key, value in entry.items() if key != "weight"}
        for key in ("folder", "llava", "images", "cache"):
            if key in plain:
                plain[key] = str(data.parent / plain[key])
        if "internvl" in plain:
            inside = open_internvl(data.parent / plain["internvl"])
            parts += [_of_file(f"{name}/{one.name}", one, weight * times) for one, times in inside]
        elif "folder" in plain:
            parts += _of_folder(f"{name}/", plain, weight, sources[name])
        else:
            if "dataset" in plain:
                if (data.parent / plain["dataset"]).exists():
                    plain["dataset"] = str(data.parent / plain["dataset"])
                plain.setdefault("images", str(data.parent))
            parts.append(Part(name, plain, weight, sources[name]))
    return parts, {key: value for key, value in content.items() if key != "sources"}


def _of_folder(prefix: str, entry: dict[str, Any], weight: float, samples: Samples) -> list[Part]:
    assert isinstance(samples, SampleFolder)
    tasks = Counter(samples.tasks_of_samples())
    if "" in tasks or (prefix and len(tasks) == 1):
        return [Part(entry["name"], entry, weight, samples)]
    return [
        Part(
            prefix + task,
            {**entry, "name": prefix + task, "task": task},
            weight,
            TaskFolder(samples.folder, [task]),
        )
        for task in sorted(tasks)
    ]


def _of_file(name: str, source: Samples, weight: float) -> Part:
    assert isinstance(source, ConversationFile)
    entry = {
        "name": name,
        "llava": str(source.annotation.resolve()),
        "images": str(source.images.resolve()),
    }
    return Part(name, entry, weight, source)


def write_subset(path: Path, parts: Sequence[Part], n_samples: int, settings: Settings) -> int:
    """Write a small mixture with equally many samples of each part, and return the number of samples."""
    counts = subset_counts([len(part.samples) for part in parts], n_samples)
    weights = {
        part.group: count / len(part.samples) for part, count in zip(parts, counts, strict=True) if count
    }
    kept = [part for part in parts if part.group in weights]
    others = {key: value for key, value in settings.items() if key != "records"}
    write_mixture(
        path, kept, weights, {}, others, ["The subset of the coarse run: as many records of every group."]
    )
    return sum(counts)


def write_mixture(
    path: Path,
    parts: Sequence[Part],
    weights: Mapping[str, float],
    comments: Mapping[str, str],
    settings: Settings,
    heading: Sequence[str],
) -> None:
    """Write a mixture file with a comment above each source. Its paths are relative to the file."""
    lines = [*(f"# {line}" for line in heading), "sources:"]
    for part in parts:
        entry = {"name": part.entry["name"]}
        entry |= {key: _relative(key, value, path.parent) for key, value in part.entry.items()}
        entry["weight"] = float(f"{weights[part.group]:.9g}")
        if comment := comments.get(part.group):
            lines.append(f"  # {comment}")
        text = yaml.safe_dump(
            entry, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
        )
        lines.append(f"  - {text.strip()}")
    if settings:
        lines.append(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).rstrip())
    with replacing(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _relative(key: str, value: Any, folder: Path) -> Any:
    if key in ("folder", "llava", "images", "cache") or (key == "dataset" and os.path.isabs(str(value))):  # noqa: PTH117
        return os.path.relpath(value, folder.resolve())
    return value
