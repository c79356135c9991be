"""Several sources as one sequence of records, by explicit weights; and any data opened by its path.

A weight is how often each record of a source is seen in an epoch, InternVL's `repeat_time`: 2 is twice, 0.25 a quarter
of the records, drawn once by the seed. The plan (item -> source and record) is made before anything is read and is
the same in every epoch and after every resume; the order in which a training run sees the items is its own.
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

from fcot_vl.data.sample import Origin, Records, Sample, SampleFolder, TaskFolder
from fcot_vl.data.sources import ConversationFile, DatasetSource, RowReader, Source, load_rows, open_internvl
from fcot_vl.data.stream import cache_stream
from fcot_vl.message import one_line

MAX_SKIPPED = 0.01  # share of records that may be unusable before a run stops
KINDS: dict[str, set[str]] = {  # of sources, and what an entry may say beside `name` and `weight`
    "folder": {"task"},
    "internvl": set(),
    "llava": {"images"},
    "dataset": {"config", "split", "columns", "images", "streaming", "records", "cache"},
}


def open_data(path: str | Path, seed: int = 0) -> SampleFolder | Source | Mixture:
    """The records at a path: Parquet shards, InternVL's or LLaVA's conversation files, or a mixture.

    Args:
        path: a folder of shards (`SampleFolder`), an InternVL meta JSON, a LLaVA JSON array or JSON lines (pictures
            relative to its folder), or a mixture YAML.
        seed: draws the records of weights that are not whole.

    Raises:
        FileNotFoundError: a folder without shards.
        ValueError: it is nothing of these, or cannot be read.
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
    """Records of several sources, map-style.

    Args:
        sources: at least one, under different names.
        weights: one a source, above 0.
        records: items of an epoch; by default every source as often as its weight says. Given, the weights are
            scaled to reach it, and so only say how often a record is seen beside one of another source.
        seed: draws the records where a source is not taken a whole number of times.
        max_skipped: what the mixture asks for; None leaves it to the run.

    Attributes:
        plan: `[items, 2]`, the source and the record of every item, source by source.

    Raises:
        ValueError: a wrong weight, a name given twice, or nothing to draw.
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
        """Where an item comes from, under the source's name in this mixture."""
        source, record = self.plan[index].tolist()
        return replace(self.sources[source].origin(record), source=self.names[source])

    def distinct(self) -> list[int]:
        """The first item of every record, in order: each record once."""
        first: list[int] = np.unique(self.plan, axis=0, return_index=True)[1].tolist()
        return sorted(first)

    def fingerprint(self) -> str:
        """SHA-256 over the sources' names and fingerprints and the plan."""
        digest = hashlib.sha256()
        for name, source in zip(self.names, self.sources, strict=True):
            digest.update(f"{name} {source.fingerprint()}\n".encode())
        digest.update(self.plan.astype("<i8").tobytes())
        return digest.hexdigest()


def draw_counts(sizes: Sequence[int], weights: Sequence[float], records: int | None = None) -> list[int]:
    """How many items each source gives: weight times size, or its share of `records`, to the nearest whole item.

    Raises ValueError for a weight that is not above 0, an empty source, or no item at all.
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
        # Largest remainders, so that the sum is exact.
        by_rest = sorted(range(len(exact)), key=lambda at: (counts[at] - exact[at], at))
        for at in by_rest[: records - sum(counts)]:
            counts[at] += 1
    if sum(counts) < 1:
        raise ValueError("the mixture draws no record; raise `records` or a weight")
    return counts


def draw(size: int, count: int, seed: int, name: str) -> NDArray[np.int64]:
    """`count` of `size` records in order: each as often as the next, those of a last part drawn by seed and name.

    The draw does not depend on which other sources there are.
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
    """The sources of one entry with their weights; an InternVL meta file may hold several."""
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
    """A folder of shards, or those of its records that have one of some tasks."""
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
