"""Open any data by its path, or the sources that a mixture YAML names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fcot_vl.common.errors import one_line
from fcot_vl.common.text import check_text
from fcot_vl.data.dataset import SampleFolder, Samples, TaskFolder
from fcot_vl.data.mixture import Mixture
from fcot_vl.data.skip_log import MAX_SKIPPED
from fcot_vl.data.sources.base import Source
from fcot_vl.data.sources.conversations import ConversationFile, open_internvl
from fcot_vl.data.sources.hf_datasets import DatasetSource, RowReader, load_rows
from fcot_vl.data.streaming import cache_stream

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
        ValueError: If the path is of another kind, cannot be read, or contains no samples.
    """
    samples = _open(Path(path), seed)
    if not len(samples):
        raise ValueError(f"{path}: there is no sample in it")
    return samples


def _open(path: Path, seed: int) -> SampleFolder | Source | Mixture:
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


def _open_mixture(path: Path, seed: int) -> Mixture:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read ({one_line(error)})") from None
    if not isinstance(content, dict) or not isinstance(content.get("sources"), list):
        raise ValueError(f"{path}: a mixture needs a list of `sources`")
    _only(content, {"sources", "records", "max_skipped"}, str(path))
    max_skipped = content.get("max_skipped")
    found: list[tuple[tuple[str, Samples], float]] = []
    try:
        for entry in content["sources"]:
            found += _entry(entry, path.parent, MAX_SKIPPED if max_skipped is None else max_skipped)
        named = [one for one, _ in found]
        return Mixture(named, [weight for _, weight in found], content.get("records"), seed, max_skipped)
    except ValueError as error:
        raise type(error)(f"{path}: {error}") from None


def _entry(entry: Any, folder: Path, max_skipped: float) -> list[tuple[tuple[str, Samples], float]]:
    """Return the sources of one entry with their weights. An InternVL meta file may contain several."""
    kinds = [kind for kind in KINDS if isinstance(entry, dict) and kind in entry]
    if len(kinds) != 1 or not isinstance(entry.get("name"), str):
        raise ValueError(f"a source needs a name and one of {', '.join(KINDS)}, got {entry}")
    (kind,) = kinds
    check_text(entry["name"], f"the name {entry['name']!r} of a source")
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


def _folder(name: str, path: Path, task: Any) -> Samples:
    """Open a folder of shards, optionally only its samples with certain tasks."""
    if task is None:
        return SampleFolder(path)
    tasks = task if isinstance(task, list) else [task]
    if not tasks or not all(isinstance(one, str) for one in tasks):
        raise ValueError(f"{name}: task is a task's name or a list of them, got {task!r}")
    return TaskFolder(path, tasks)


def _open_dataset(entry: dict[str, Any], folder: Path, max_skipped: float) -> Samples:
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
            f"{name}: a streaming dataset needs `records`, the number of samples to read, and `cache`, the "
            "folder to store them in; other datasets take neither"
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
) -> tuple[list[tuple[str, Samples]], list[float]]:
    return [(source.name, source) for source, _ in found], [weight for _, weight in found]
