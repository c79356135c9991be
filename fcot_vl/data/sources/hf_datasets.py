"""Datasets of the `datasets` library: a local path or a Hub id, and a mapping from its columns to a sample."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from fcot_vl.common.errors import one_line
from fcot_vl.common.files import ESCAPED
from fcot_vl.common.text import clean_text
from fcot_vl.data.chat_format import malformed, read_answer, read_question, read_turns
from fcot_vl.data.dataset import Origin, Sample
from fcot_vl.data.images import LazyImage
from fcot_vl.data.sources.base import Source, check_local

COLUMNS = ("image", "question", "answer", "messages", "id")
ROWS = 1000  # rows of a dataset that are hashed together


class RowReader:
    """Reader that turns rows of a `datasets` dataset into samples with a column mapping.

    Args:
        name: Name of the source.
        columns: Column mapping. `image` is the column of the image, the path, or a list of either. The text is either
            `question` and `answer` or `messages`. An answer is a text or a list; the first one is the label, and all
            are kept as accepted answers. `id` is optional.
        images: Folder that paths are relative to.

    Raises:
        ValueError: If a key is unknown, or the columns do not give a conversation.
    """

    def __init__(self, name: str, columns: Mapping[str, str], images: Path) -> None:
        unknown = [key for key in columns if key not in COLUMNS]
        if unknown:
            raise ValueError(f"{name}: columns has {unknown[0]!r}; known are {', '.join(COLUMNS)}")
        if not {"image", "messages", "question"} & columns.keys():
            raise ValueError(f"{name}: columns must name at least an image, a question or messages")
        if "messages" in columns and {"question", "answer"} & columns.keys():
            raise ValueError(f"{name}: columns names messages and question or answer; give one of both")
        self.name, self.columns, self.images = name, dict(columns), images

    def check(self, have: Sequence[str]) -> None:
        """Check that the dataset has all mapped columns.

        Raises:
            ValueError: If a column is missing.
        """
        for key, column in self.columns.items():
            if column not in have:
                raise ValueError(f"{self.name}: no column {column!r} for {key}; it has {', '.join(have)}")

    def undecoded(self, dataset: Any) -> Any:
        """Return the dataset with images left as bytes or paths."""
        from datasets import Image as ImageFeature
        from datasets import List

        column = self.columns.get("image")
        if column is None or dataset.features is None:
            return dataset
        feature = dataset.features[column]
        if isinstance(feature, ImageFeature):
            return dataset.cast_column(column, ImageFeature(decode=False))
        if isinstance(getattr(feature, "feature", None), ImageFeature):
            return dataset.cast_column(column, List(ImageFeature(decode=False)))
        return dataset

    def id(self, row: Mapping[str, Any], index: int) -> str:
        column = self.columns.get("id")
        value = row.get(column) if column else None
        return f"{self.name}-{index}" if value is None else clean_text(str(value))

    def sample(self, row: Mapping[str, Any], index: int) -> Sample:
        """Convert a row to a sample.

        Raises:
            ValueError: If the row cannot be used.
            OSError: If the row cannot be used.
        """
        label = f"{self.name}, record {self.id(row, index)}"
        found = row[self.columns["image"]] if "image" in self.columns else None
        images: list[Image.Image] = [
            self._image(image, label)
            for image in ([] if found is None else found if isinstance(found, list) else [found])
        ]
        answers: list[str] = []
        messages: list[dict[str, str]] = []
        if "messages" in self.columns:
            messages = read_turns(row[self.columns["messages"]], len(images))
        elif "question" in self.columns:
            answer = row[self.columns["answer"]] if "answer" in self.columns else None
            accepted = answer if isinstance(answer, list) else [answer]
            if not accepted or ("answer" in self.columns and accepted[0] is None):
                raise malformed("no answer")
            messages = read_question(row[self.columns["question"]], accepted[0], len(images))
            answers = [read_answer(one) for one in accepted] if "answer" in self.columns else []
        return Sample(self.id(row, index), images, messages, "", self.name, answers)

    def _image(self, found: Any, label: str) -> LazyImage:
        if isinstance(found, dict) and found.get("bytes") is not None:
            return LazyImage(found["bytes"], label)
        path: Any = found.get("path") if isinstance(found, dict) else found
        check_local(path)
        return LazyImage(self.images / path)


class DatasetSource(Source):
    """Map-style `datasets` dataset."""

    def __init__(self, dataset: Any, reader: RowReader) -> None:
        self.name, self._reader = reader.name, reader
        reader.check(dataset.column_names)
        # Select only the mapped columns. Other columns may contain images, which would be read for nothing.
        self._rows = reader.undecoded(dataset.select_columns(sorted(set(reader.columns.values()))))

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Sample:
        return self._reader.sample(self._rows[index], index)

    def origin(self, index: int) -> Origin:
        column = self._reader.columns.get("id")
        row = {} if column is None else self._rows.select_columns([column])[index]
        return Origin(self.name, self._reader.id(row, index), index)

    def fingerprint(self) -> str:
        """Compute the SHA-256 of all text and numbers, and of the size in bytes (or the path) of each image."""
        digest = hashlib.sha256(json.dumps(self._reader.columns, sort_keys=True).encode())
        image_column = self._reader.columns.get("image")
        arrow = self._rows.with_format("arrow")
        for start in range(0, len(self), ROWS):
            table = arrow[start : start + ROWS]
            for name in table.column_names:
                column = table.column(name)
                values = _image_sizes(column) if name == image_column else column.to_pylist()
                digest.update(json.dumps(values, default=str, ensure_ascii=False).encode("utf-8", ESCAPED))
        return digest.hexdigest()


def _image_sizes(column: Any) -> list[Any]:
    """Return the size in bytes and the path of each image of an Arrow column, without copying the bytes to Python."""
    lengths: list[Any] = []
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths += pc.list_value_length(column).to_pylist()
        column = pc.list_flatten(column)
    if not pa.types.is_struct(column.type):
        return lengths + column.to_pylist()
    sizes = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
    return lengths + sizes + pc.struct_field(column, "path").to_pylist()


def load_rows(name: str, path: str, folder: Path, config: str | None, split: str, streaming: bool) -> Any:
    """Load a dataset by local path (relative to `folder`) or Hub id with `datasets`, without remote code.

    A local dataset is a folder written by `save_to_disk`, a Parquet, JSON, JSON-lines or Arrow file, or a folder of
    Parquet files.

    Raises:
        ValueError: If `datasets` cannot load it. The message is one line.
    """
    local = folder / path
    try:
        if local.exists():
            return _local_rows(local, config, split, streaming)
        if local.is_absolute() or path.startswith((".", os.sep)) or path.count("/") > 1:
            raise FileNotFoundError("no such file or folder")
        from datasets import load_dataset

        return load_dataset(path, config, split=split, streaming=streaming)
    except Exception as error:  # the library may raise nearly any exception, including network errors
        raise ValueError(f"{name}: the dataset {path} cannot be loaded ({one_line(error)})") from None


def _local_rows(local: Path, config: str | None, split: str, streaming: bool) -> Any:
    from datasets import DatasetDict, load_dataset, load_from_disk

    if (local / "state.json").exists() or (local / "dataset_dict.json").exists():
        dataset = load_from_disk(str(local))
        dataset = dataset[split] if isinstance(dataset, DatasetDict) else dataset
        return dataset.to_iterable_dataset() if streaming else dataset
    files = [local] if local.is_file() else sorted(local.rglob("*.parquet"))
    if not files:
        raise ValueError("neither a save_to_disk folder nor Parquet files")
    builders = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".arrow": "arrow"}
    builder = builders.get(files[0].suffix)
    if builder is None:
        raise ValueError(f"a {files[0].suffix} file; known are {', '.join(builders)}")
    names = [str(file) for file in files]
    return load_dataset(builder, config, data_files={split: names}, split=split, streaming=streaming)
