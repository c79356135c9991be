"""Sources of samples: conversation files, folders of images, and `datasets` datasets.

Each source is a map-style sequence of `Sample`. It reads the text of a sample and the header of its images; pixels are
decoded on first use. Accessing an unusable sample raises an error, so that a run can skip it and report its `Origin`.
Opening a source raises only for errors that make the whole source unusable. No URL is ever opened: an image is a local
file or is embedded in the data. `mixture.py` opens a source by its path and mixes several.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from fcot_vl.common.errors import one_line
from fcot_vl.data.chat_format import RecordError, malformed, read_question, read_turns
from fcot_vl.data.dataset import Origin, Records, Sample
from fcot_vl.data.images import ImageError, LazyPicture

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp"}
COLUMNS = ("image", "question", "answer", "messages", "id")
ROWS = 1000  # rows of a dataset that are hashed together


class Source(Records):
    """Samples under one name."""

    name: str


def origin_of(samples: Sequence[Sample], index: int) -> Origin:
    """Return the origin of a sample of any sequence. For a plain list, the origin only has an index."""
    if hasattr(samples, "origin"):
        origin: Origin = samples.origin(index)
        return origin
    return Origin("", str(index), index)


def kind_of(error: BaseException) -> str:
    """Return the category that a sample which raised `error` is counted under."""
    if isinstance(error, RecordError):
        return error.kind
    if "no such file" in str(error).lower():
        return "missing file"
    if isinstance(error, ImageError | OSError | SyntaxError):  # Pillow raises the last two
        return "broken picture"
    return "malformed conversation" if isinstance(error, ValueError) else "unusable record"


def reason_of(error: BaseException) -> str:
    """Return the message of an error in one line, with its type if the message is not meant for people."""
    meant = isinstance(error, ValueError | OSError)
    return one_line(error) if meant else f"{type(error).__name__}: {one_line(error)}"


# --------------------------------------------------------------------------------------------- conversation files


class JsonRecords(Sequence[dict[str, Any]]):
    """Objects of a JSON-lines file, or of a file that is one JSON array, parsed on access.

    For JSON lines, only the position of each line is kept in memory. A JSON array must be read whole and is kept as
    text. In both cases, no large list of objects is copied into every worker.

    Raises:
        ValueError: If the file cannot be read, or starts like a JSON array but is not a valid one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._text = _array_as_lines(path) if _is_array(path) else None
            with self._open() as lines:
                self._spans = _spans(lines)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from None

    def _open(self) -> IO[bytes]:
        """Open the file anew on each call, because workers that share a file would share its position."""
        return self.path.open("rb") if self._text is None else io.BytesIO(self._text)

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: Any) -> Any:
        start, end = self._spans[index].tolist()
        with self._open() as lines:
            lines.seek(start)
            return self._parse(lines.read(end - start))

    def texts(self) -> Iterator[bytes]:
        """Yield every line as written, in one pass over the file."""
        with self._open() as lines:
            yield from (line for line in lines if line.strip())

    @staticmethod
    def _parse(line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except ValueError as error:
            raise malformed(f"not JSON ({one_line(error, 80)})") from None
        if not isinstance(record, dict):
            raise malformed(f"no object but {type(record).__name__}")
        return record

    def pictures(self) -> Iterator[str]:
        """Yield the image paths of all readable samples, in order."""
        for text in self.texts():
            try:
                yield from _picture_paths(self._parse(text))
            except RecordError:
                continue


def _is_array(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _array_as_lines(path: Path) -> bytes:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(
            f"{path}: starts like a JSON array but is not valid JSON ({one_line(error)})"
        ) from None
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in found)


def _spans(lines: Iterable[bytes]) -> NDArray[np.int64]:
    """Compute the start and end of each line that is not blank, `[lines, 2]`."""
    spans, at = [], 0
    for line in lines:
        if line.strip():
            spans.append((at, at + len(line)))
        at += len(line)
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


class ConversationFile(Source):
    """InternVL JSONL or LLaVA JSON file, one `{"id", "image", "conversations": [{"from", "value"}, ...]}` per sample.

    Args:
        name: Name of the source.
        annotation: File with JSON lines or one JSON array.
        images: Folder that the `image` of a sample (a path or a list of paths) is relative to.
    """

    def __init__(self, name: str, annotation: Path, images: Path) -> None:
        self.name, self.annotation, self.images = name, annotation, images
        self._records = JsonRecords(annotation)

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Sample:
        record = self._records[index]
        pictures: list[Image.Image] = [LazyPicture(self.images / path) for path in _picture_paths(record)]
        messages = read_turns(record.get("conversations"), len(pictures))
        return Sample(self._id(record, index), pictures, messages, "", self.name)

    def origin(self, index: int) -> Origin:
        try:
            return Origin(self.name, self._id(self._records[index], index), index)
        except RecordError:
            return Origin(self.name, f"{self.name}-{index}", index)

    def _id(self, record: Mapping[str, Any], index: int) -> str:
        return str(record.get("id", f"{self.name}-{index}"))

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the bytes of the file and of the path and size in bytes of each image."""
        digest = hashlib.sha256()
        with self.annotation.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        folder = str(self.images)
        for path in self._records.pictures():
            digest.update(f"{path} {_bytes_of(os.path.join(folder, path))}\n".encode())  # noqa: PTH118
        return digest.hexdigest()


def _picture_paths(record: Mapping[str, Any]) -> list[str]:
    if record.get("video"):
        raise RecordError("video", "a video; only pictures are read")
    found = record.get("image")
    paths = [] if not found else found if isinstance(found, list) else [found]
    for path in paths:
        check_local(path)
    return paths


def check_local(path: Any) -> None:
    """Refuse anything that is not the path of a local file, so that data files cannot trigger requests to URLs."""
    if not isinstance(path, str) or not path:
        raise malformed(f"a picture is no path but {type(path).__name__}")
    if "://" in path or path.startswith("data:"):
        raise RecordError(
            "picture by address", f"{path[:60]}: only local files are opened; download it first"
        )


def _bytes_of(path: str | Path) -> int:
    """Return the size of a file in bytes, or -1 if it does not exist.

    Paths are strings here: with millions of files, building a `Path` takes longer than the lookup.
    """
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except (OSError, ValueError):
        return -1


def open_internvl(meta: Path) -> list[tuple[Source, float]]:
    """Open the sources of an InternVL meta JSON with their weights: `{name: {root, annotation, repeat_time, ...}}`.

    `root` and `annotation` are relative to the meta file. `length` is not needed. `data_augment` and
    `max_dynamic_patch` have no counterpart here, because the processor does the tiling; a line is printed if they are
    set.

    Raises:
        ValueError: If the file is not an InternVL meta file, or an annotation cannot be read.
    """
    entries = _read_json(meta)
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{meta}: not an InternVL meta file; expected one JSON object of sources")
    found: list[tuple[Source, float]] = []
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not {"root", "annotation"} <= entry.keys():
            raise ValueError(f"{meta}: {name} needs `root` and `annotation`")
        unused = [key for key in ("data_augment", "max_dynamic_patch") if entry.get(key)]
        if unused:
            print(
                f"{meta}: {name}: {' and '.join(unused)} not used, the processor tiles all alike", flush=True
            )
        folder = meta.parent
        source = ConversationFile(name, folder / entry["annotation"], folder / entry["root"])
        weight = entry.get("repeat_time", 1)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"{meta}: {name}: repeat_time is a number, got {weight!r}")
        found.append((source, float(weight)))
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({one_line(error)})") from None


# ------------------------------------------------------------------------------------------------ pictures alone


class PictureFolder(Source):
    """Images of a folder and its subfolders, in name order, without text, to be labelled.

    Attributes:
        refused: Files that are not images by their name. Hidden files are ignored.

    Raises:
        ValueError: If the folder has no image.
    """

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = folder.name, folder
        files = sorted(
            path
            for path in folder.rglob("*")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )
        self.files = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES]
        self.refused = [path for path in files if path.suffix.lower() not in PICTURE_SUFFIXES]
        if not self.files:
            raise ValueError(f"{folder}: no picture here ({', '.join(sorted(PICTURE_SUFFIXES))})")

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Sample:
        return Sample(self._id(index), [LazyPicture(self.files[index])], [], "", self.name)

    def origin(self, index: int) -> Origin:
        return Origin(self.name, self._id(index), index)

    def _id(self, index: int) -> str:
        return self.files[index].relative_to(self.folder).as_posix()

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the path and size in bytes of every image."""
        lines = [f"{self._id(index)} {_bytes_of(path)}\n" for index, path in enumerate(self.files)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------- datasets


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
        from datasets import Image as Picture
        from datasets import List

        column = self.columns.get("image")
        if column is None or dataset.features is None:
            return dataset
        feature = dataset.features[column]
        if isinstance(feature, Picture):
            return dataset.cast_column(column, Picture(decode=False))
        if isinstance(getattr(feature, "feature", None), Picture):
            return dataset.cast_column(column, List(Picture(decode=False)))
        return dataset

    def id(self, row: Mapping[str, Any], index: int) -> str:
        column = self.columns.get("id")
        value = row.get(column) if column else None
        return f"{self.name}-{index}" if value is None else str(value)

    def sample(self, row: Mapping[str, Any], index: int) -> Sample:
        """Convert a row to a sample.

        Raises:
            ValueError: If the row cannot be used.
            OSError: If the row cannot be used.
        """
        label = f"{self.name}, record {self.id(row, index)}"
        found = row[self.columns["image"]] if "image" in self.columns else None
        pictures: list[Image.Image] = [
            self._picture(picture, label)
            for picture in ([] if found is None else found if isinstance(found, list) else [found])
        ]
        answers: list[str] = []
        messages: list[dict[str, str]] = []
        if "messages" in self.columns:
            messages = read_turns(row[self.columns["messages"]], len(pictures))
        elif "question" in self.columns:
            answer = row[self.columns["answer"]] if "answer" in self.columns else None
            accepted = answer if isinstance(answer, list) else [answer]
            if not accepted or ("answer" in self.columns and accepted[0] is None):
                raise malformed("no answer")
            messages = read_question(row[self.columns["question"]], accepted[0], len(pictures))
            answers = [text for text in accepted if isinstance(text, str)]
        return Sample(self.id(row, index), pictures, messages, "", self.name, answers)

    def _picture(self, found: Any, label: str) -> LazyPicture:
        if isinstance(found, dict) and found.get("bytes") is not None:
            return LazyPicture(found["bytes"], label)
        path: Any = found.get("path") if isinstance(found, dict) else found
        check_local(path)
        return LazyPicture(self.images / path)


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
        picture = self._reader.columns.get("image")
        arrow = self._rows.with_format("arrow")
        for start in range(0, len(self), ROWS):
            table = arrow[start : start + ROWS]
            for name in table.column_names:
                column = table.column(name)
                values = _picture_sizes(column) if name == picture else column.to_pylist()
                digest.update(json.dumps(values, default=str, ensure_ascii=False).encode())
        return digest.hexdigest()


def _picture_sizes(column: Any) -> list[Any]:
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
