"""Mixture of several sources with explicit weights, and `open_data`, which opens any data by its path.

A weight is how often each sample of a source is seen in an epoch (InternVL's `repeat_time`). A weight of 2 means twice.
A weight of 0.25 means a quarter of the samples, drawn once by the seed. The plan (item -> source and sample) is made
before anything is read. It is the same in every epoch and after every resume. The training run chooses the order of the
items.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from fcot_vl.common.errors import one_line
from fcot_vl.data.dataset import Origin, Records, Sample, SampleFolder, TaskFolder
from fcot_vl.data.sources import ConversationFile, DatasetSource, RowReader, Source, load_rows, open_internvl
from fcot_vl.data.streaming import cache_stream

MAX_SKIPPED = 0.01  # maximum share of unusable samples before a run stops
KINDS: dict[str, set[str]] = {  # kinds of sources, and the keys an entry may have besides `name` and `weight`
    "folder": {"task"},
    "internvl": set(),
    "llava": {"images"},
    "dataset": {"config", "split", "columns", "images", "streaming", "records", "cache"},
}


def open_data(path: str | Path, seed: int = 0) -> SampleFolder | Source | Mixture:
    """Open the samples at a path: Parquet shards, InternVL or LLaVA conversation files, or a mixture.

    Args:
        path: Folder of shards (`SampleFolder`), InternVL meta JSON, LLaVA JSON array or JSON lines (image paths
            relative to its folder), or mixture YAML.
        seed: Seed for drawing the samples of fractional weights.

    Raises:
        FileNotFoundError: If a folder has no shards.
        ValueError: If the path is none of these or cannot be read.
    """
    path = Path(path)
    if path.is_dir() and (path / "state.json").exists():
        raise ValueError(f"{path}: a datasets folder; name it in a mixture YAML, with its columns")
    if path.suffix in (".yaml", ".yml"):
        return _open_mixture(path, seed)
    if path.suffix in (".json", ".jsonl"):
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        if path.suffix == ".json" and path.read_bytes()[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            return Mixture(*_split(open_internvl(path)), seed=seed)
        return ConversationFile(path.stem, path, path.parent)
    if path.is_file():
        raise ValueError(
            f"{path}: no data; give a folder of Parquet shards, a meta JSON, a LLaVA JSON or a mixture YAML"
        )
    return SampleFolder(path)


class Mixture(Records):
    """Samples of several sources, map-style.

    Args:
        sources: Sources, at least one, with distinct names.
        weights: One weight per source, above 0.
        records: Number of items of an epoch. Default: the sum of the sizes times the weights. If given, the weights are
            scaled to reach this number; they then only set how often a sample is seen relative to a sample of another
            source.
        seed: Seed for drawing samples of the sources that are not repeated a whole number of times.
        max_skipped: Maximum share of unusable samples that the mixture asks for. None leaves the choice to the run.

    Attributes:
        plan: Source and sample of every item, `[items, 2]`, ordered by source.

    Raises:
        ValueError: If a weight is invalid, a name is used twice, or no sample would be drawn.
    """

    def __init__(
        self,
        sources: Sequence[tuple[str, Records]],
        weights: Sequence[float],
        records: int | None = None,
        seed: int = 0,
        max_skipped: float | None = None,
    ) -> None:
        names = [name for name, _ in sources]
        if len(set(names)) < len(names):
            raise ValueError(f"two sources share a name: {', '.join(names)}")
        self.names, self.sources = names, [source for _, source in sources]
        self.max_skipped = max_skipped
        counts = draw_counts([len(source) for source in self.sources], weights, records)
        drawn = [
            draw(len(source), count, seed, name)
            for name, source, count in zip(names, self.sources, counts, strict=True)
        ]
        self.plan = np.concatenate(
            [np.stack([np.full(len(rows), at), rows], axis=1) for at, rows in enumerate(drawn)]
        )
        for name, source, count in zip(names, self.sources, counts, strict=True):
            print(f"data: {name}: {count:,} items from {len(source):,} records", flush=True)

    def __len__(self) -> int:
        return len(self.plan)

    def read(self, index: int) -> Sample:
        source, record = self.plan[index].tolist()
        return self.sources[source][record]

    def origin(self, index: int) -> Origin:
        """Return the origin of an item, with the name of the source in this mixture."""
        source, record = self.plan[index].tolist()
        return replace(self.sources[source].origin(record), source=self.names[source])

    def distinct(self) -> list[int]:
        """Return the first item of every sample, in order, so that each sample appears once."""
        first: list[int] = np.unique(self.plan, axis=0, return_index=True)[1].tolist()
        return sorted(first)

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the names and fingerprints of the sources and of the plan."""
        digest = hashlib.sha256()
        for name, source in zip(self.names, self.sources, strict=True):
            digest.update(f"{name} {source.fingerprint()}\n".encode())
        digest.update(self.plan.astype("<i8").tobytes())
        return digest.hexdigest()


def draw_counts(sizes: Sequence[int], weights: Sequence[float], records: int | None = None) -> list[int]:
    """Compute the number of items per source: size times weight, or its share of `records`, rounded to whole items.

    Raises:
        ValueError: If a weight is not above 0, a source is empty, or no item would be drawn.
    """
    for size, weight in zip(sizes, weights, strict=True):
        if not 0 < weight < float("inf"):
            raise ValueError(f"a weight must be above 0, got {weight}; leave the source out instead")
        if size == 0:
            raise ValueError("a source has no record; leave it out")
    wanted = [size * weight for size, weight in zip(sizes, weights, strict=True)]
    if records is None:
        counts = [int(want + 0.5) for want in wanted]
    else:
        exact = [want * records / sum(wanted) for want in wanted]
        counts = [int(share) for share in exact]
        # Distribute the remaining items by largest remainder, so that the sum is exact.
        by_rest = sorted(range(len(exact)), key=lambda at: (counts[at] - exact[at], at))
        for at in by_rest[: records - sum(counts)]:
            counts[at] += 1
    if sum(counts) < 1:
        raise ValueError("the mixture draws no record; raise `records` or a weight")
    return counts


def draw(size: int, count: int, seed: int, name: str) -> NDArray[np.int64]:
    """Draw `count` indices out of `size`, in ascending order.

    Each index appears `count // size` times. The remaining ones are drawn by the seed and the name. The draw does not
    depend on the other sources of the mixture.
    """
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    whole, rest = divmod(count, size)
    records = [np.tile(np.arange(size), whole), random.permutation(size)[:rest]]
    return np.sort(np.concatenate(records).astype(np.int64), kind="stable")


# -------------------------------------------------------------------------------------------------- mixture files


def _open_mixture(path: Path, seed: int) -> Mixture:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read ({one_line(error)})") from None
    if not isinstance(content, dict) or not isinstance(content.get("sources"), list):
        raise ValueError(f"{path}: a mixture needs a list of `sources`")
    _only(content, {"sources", "records", "max_skipped"}, str(path))
    max_skipped = content.get("max_skipped")
    found: list[tuple[tuple[str, Records], float]] = []
    try:
        for entry in content["sources"]:
            found += _entry(entry, path.parent, MAX_SKIPPED if max_skipped is None else max_skipped)
        named = [one for one, _ in found]
        return Mixture(named, [weight for _, weight in found], content.get("records"), seed, max_skipped)
    except ValueError as error:
        raise type(error)(f"{path}: {error}") from None


def _entry(entry: Any, folder: Path, max_skipped: float) -> list[tuple[tuple[str, Records], float]]:
    """Return the sources of one entry with their weights. An InternVL meta file may contain several."""
    kinds = [kind for kind in KINDS if isinstance(entry, dict) and kind in entry]
    if len(kinds) != 1 or not isinstance(entry.get("name"), str):
        raise ValueError(f"a source needs a name and one of {', '.join(KINDS)}, got {entry}")
    (kind,) = kinds
    name, path, weight = entry["name"], str(entry[kind]), entry.get("weight", 1.0)
    _only(entry, {"name", "weight", kind} | KINDS[kind], name)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ValueError(f"{name}: weight is a number, got {weight!r}")
    match kind:
        case "folder":
            return [((name, _folder(name, folder / path, entry.get("task"))), weight)]
        case "internvl":
            inside = open_internvl(folder / path)
            return [((f"{name}/{one.name}", one), weight * times) for one, times in inside]
        case "llava":
            file = folder / path
            images = folder / entry["images"] if "images" in entry else file.parent
            return [((name, ConversationFile(name, file, images)), weight)]
    return [((name, _open_dataset(entry, folder, max_skipped)), weight)]


def _folder(name: str, path: Path, task: Any) -> Records:
    """Open a folder of shards, optionally only its samples with certain tasks."""
    if task is None:
        return SampleFolder(path)
    tasks = task if isinstance(task, list) else [task]
    if not tasks or not all(isinstance(one, str) for one in tasks):
        raise ValueError(f"{name}: task is a task's name or a list of them, got {task!r}")
    return TaskFolder(path, tasks)


def _open_dataset(entry: dict[str, Any], folder: Path, max_skipped: float) -> Records:
    name, path, split = entry["name"], str(entry["dataset"]), str(entry.get("split", "train"))
    columns = entry.get("columns")
    if not isinstance(columns, dict):
        raise ValueError(
            f"{name}: a dataset needs columns, such as {{image: image, question: question, ...}}"
        )
    reader = RowReader(name, columns, folder / entry.get("images", "."))
    streaming = bool(entry.get("streaming", False))
    if streaming != ("cache" in entry) or streaming != ("records" in entry):
        raise ValueError(
            f"{name}: a streaming dataset needs `records`, how many are read, and `cache`, the folder they are "
            "kept in; other datasets take neither"
        )
    rows = load_rows(name, path, folder, entry.get("config"), split, streaming)
    if not streaming:
        return DatasetSource(rows, reader)
    settings = {"dataset": path, "config": entry.get("config"), "split": split}
    return cache_stream(folder / entry["cache"], rows, reader, int(entry["records"]), settings, max_skipped)


def _only(found: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(str(key) for key in found.keys() - known)
    if unknown:
        raise ValueError(f"{where}: unknown {unknown[0]!r}; known here are {', '.join(sorted(known))}")


def _split(
    found: Sequence[tuple[Source, float]],
) -> tuple[list[tuple[str, Records]], list[float]]:
    return [(source.name, source) for source, _ in found], [weight for _, weight in found]
