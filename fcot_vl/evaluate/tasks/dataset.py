"""Rows of a benchmark as samples, read with `datasets` from the hub or from local data with the same columns.

`public.py` defines the meaning of a row. Rows are read on access,
and an image is opened when its pixels are needed, so a benchmark of many gigabytes uses no memory. Code that comes with
a dataset is never run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fcot_vl.common.errors import one_line
from fcot_vl.common.files import ESCAPED
from fcot_vl.common.text import clean_text, has_surrogates
from fcot_vl.data.chat_format import SampleError
from fcot_vl.data.dataset import Origin, Sample, Samples
from fcot_vl.data.images import LazyImage
from fcot_vl.data.sources.base import check_local
from fcot_vl.evaluate.tasks.public import Benchmark

IMAGE_COLUMN = "image"  # column of the image in every benchmark
BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".arrow": "arrow"}


class BenchmarkSamples(Samples):
    """Questions of one split of a benchmark, as samples without an assistant's turn.

    The id of a sample is its index in the split, followed by a colon and the benchmark's own id if there is one. Its
    task is the part of the benchmark that it belongs to. Answers of a hidden split are not read.

    Args:
        benchmark: Benchmark that defines the meaning of the rows.
        rows: Map-style dataset of `datasets`.
        split: Name of the split.
        folder: Folder to which image paths are relative.

    Raises:
        ValueError: If a column is missing, or there are no rows.
    """

    def __init__(self, benchmark: Benchmark, rows: Any, split: str, folder: Path) -> None:
        self.benchmark, self.split, self.folder = benchmark, split, folder
        self.hidden = split in benchmark.hidden
        unread = {"answer", "answers"} if self.hidden else set()
        needed = [*(column for column in benchmark.columns if column not in unread), IMAGE_COLUMN]
        if lacking := [column for column in needed if column not in rows.column_names]:
            raise ValueError(
                f"{benchmark.name}: no column {', '.join(map(repr, lacking))} in this data; it has "
                f"{', '.join(rows.column_names)}"
            )
        if not len(rows):
            raise ValueError(f"{benchmark.name}: the split {split!r} has no row")
        self._rows = _undecoded(rows.select_columns(needed))

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Sample:
        row, benchmark = self._rows[index], self.benchmark
        images = self._images(row, index)
        check_row(row, benchmark, f"row {index}")
        try:
            question = {"role": "user", "content": benchmark.question(row)}
            group, metric = benchmark.group_of(row), benchmark.metric_of(row)
            answers = [] if self.hidden else benchmark.answers(row)
        except (TypeError, AttributeError):
            raise malformed_row(f"row {index}: another type in a column than {benchmark.name} has") from None
        return Sample(
            self._id(row, index), images, [question], group, benchmark.name, answers=answers, metric=metric
        )

    def origin(self, index: int) -> Origin:
        own = self.benchmark.own_id
        row = {} if own is None else self._rows.select_columns([own])[index]
        return Origin(self.benchmark.name, self._id(row, index), index)

    def fingerprint(self) -> str:
        """Return the SHA-256 over the rows in order: every column that is read, and the bytes of each image."""
        digest = hashlib.sha256(f"{self.benchmark.name} {self.split}".encode())
        for row in self._rows:
            image = row.pop(IMAGE_COLUMN)
            digest.update(
                json.dumps(row, sort_keys=True, default=str, ensure_ascii=False).encode("utf-8", ESCAPED)
            )
            digest.update(hashlib.sha256(self._bytes(image)).digest())
        return digest.hexdigest()

    def _id(self, row: Mapping[str, Any], index: int) -> str:
        own = self.benchmark.own_id
        return str(index) if own is None else f"{index}:{clean_text(str(row[own]))}"

    def _images(self, row: Mapping[str, Any], index: int) -> list[Image.Image]:
        image, label = row[IMAGE_COLUMN], f"{self.benchmark.name}, row {index}"
        if image is None:
            raise SampleError("without an image", f"row {index}: nothing in column {IMAGE_COLUMN!r}")
        if isinstance(image, Mapping) and image.get("bytes") is not None:
            return [LazyImage(image["bytes"], label)]
        return [LazyImage(self._path(image), label)]

    def _path(self, image: Any) -> Path:
        path: Any = image.get("path") if isinstance(image, Mapping) else image
        check_local(path)
        return self.folder / path

    def _bytes(self, image: Any) -> bytes:
        if isinstance(image, Mapping) and image.get("bytes") is not None:
            return bytes(image["bytes"])
        try:
            return self._path(image).read_bytes()
        except (OSError, ValueError):  # reported when the sample is read
            return b""


def malformed_row(reason: str) -> SampleError:
    """Return the error for a row that cannot be used."""
    return SampleError("malformed row", reason)


def check_row(row: Mapping[str, Any], benchmark: Benchmark, where: str) -> None:
    """Check every column that is used, except the image and the answers, which have checks of their own.

    Raises:
        SampleError: If a column has nothing, an empty text or list, or text that is not valid Unicode.
    """
    for column in benchmark.columns:
        if column in ("answer", "answers"):
            continue
        value = row[column]
        values = value if isinstance(value, list) else [value]
        if column not in benchmark.optional:
            nothing = [one for one in values if one is None or (isinstance(one, str) and not one.strip())]
            if nothing or not values:
                raise malformed_row(f"{where}: nothing in column {column!r}")
        if not all(one is None or isinstance(one, str | int | float) for one in values):
            raise malformed_row(f"{where}: neither text nor numbers in column {column!r}")
        if any(isinstance(one, str) and has_surrogates(one) for one in values):
            raise malformed_row(f"{where}: no valid Unicode in column {column!r}")


def _undecoded(rows: Any) -> Any:
    from datasets import Image as ImageFeature

    if isinstance(rows.features[IMAGE_COLUMN], ImageFeature):
        return rows.cast_column(IMAGE_COLUMN, ImageFeature(decode=False))
    return rows


def open_benchmark(
    benchmark: Benchmark, data: str | Path | None = None, split: str | None = None, limit: int | None = None
) -> BenchmarkSamples:
    """Open the samples of a benchmark.

    Args:
        benchmark: Benchmark to open.
        data: Folder written by `save_to_disk`; folder of Parquet files, of JSON lines, or of images with a
            `metadata.jsonl`; one Parquet or JSON-lines file; or another dataset on the hub. None: the benchmark's
            dataset on the hub.
        split: Split to open. Default: the benchmark's. A folder or file without splits is used as this split.
        limit: Maximum number of rows, from the start.

    Raises:
        ValueError: If the data cannot be loaded, a column is missing, or there are no rows. The message is one line.
    """
    split = split or benchmark.split
    place = benchmark.hub if data is None else str(data)
    try:
        rows = _load(benchmark, place, split)
    except Exception as error:  # `datasets` raises nearly any error, including network errors
        raise ValueError(f"{benchmark.name}: {place} cannot be loaded ({one_line(error)})") from None
    if limit is not None:
        rows = rows.select(range(min(limit, len(rows))))
    path = Path(place)
    return BenchmarkSamples(benchmark, rows, split, path if path.is_dir() else path.parent)


def _load(benchmark: Benchmark, place: str, split: str) -> Any:
    from datasets import DatasetDict, get_dataset_config_names, load_dataset, load_from_disk

    path = Path(place)
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        found = load_from_disk(place)
        if not isinstance(found, DatasetDict):
            return found
        if split not in found:
            raise ValueError(f"no split {split!r}; it has {', '.join(found)}")
        return found[split]
    if path.is_file():
        if path.suffix not in BUILDERS:
            raise ValueError(f"a {path.suffix} file; known are {', '.join(BUILDERS)}")
        return load_dataset(BUILDERS[path.suffix], data_files={split: [place]}, split=split)
    if not path.exists() and (path.is_absolute() or place.startswith(".") or place.count("/") > 1):
        raise FileNotFoundError("no such file or folder")
    return load_dataset(place, _config(benchmark, get_dataset_config_names(place)), split=split)


def _config(benchmark: Benchmark, names: Sequence[str]) -> str:
    """Return the benchmark's configuration if the dataset has it, else the only one."""
    if benchmark.config in names:
        return str(benchmark.config)
    if len(names) != 1:
        wanted = f"none is called {benchmark.config!r}" if benchmark.config else "it should have one"
        raise ValueError(f"it has configurations {', '.join(names)}; {wanted}")
    return names[0]
