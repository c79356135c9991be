"""Where records come from: conversation files, folders of pictures, `datasets` datasets.

Each is a map-style sequence of `Sample` that reads a record's text and the header of its pictures; pixels are decoded
when they are used. A record that cannot be used raises when it is asked for, which is how a run skips it and names it
(`Origin`); only what makes a whole source useless raises when the source is opened. Nothing here opens an address: a
picture is a local file or lies in the data itself. `mixture.py` opens a source by its path and mixes several.
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

from fcot_vl.data.conversation import RecordError, malformed, read_question, read_turns
from fcot_vl.data.images import ImageError, LazyPicture
from fcot_vl.data.sample import Origin, Records, Sample
from fcot_vl.message import one_line

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp"}
COLUMNS = ("image", "question", "answer", "messages", "id")
ROWS = 1000  # of a dataset, read together to be hashed


class Source(Records):
    """Records under one name."""

    name: str


def origin_of(samples: Sequence[Sample], index: int) -> Origin:
    """Where a record of any sequence comes from; a plain list only has an index."""
    if hasattr(samples, "origin"):
        origin: Origin = samples.origin(index)
        return origin
    return Origin("", str(index), index)


def kind_of(error: BaseException) -> str:
    """What a record that raised `error` is counted under."""
    if isinstance(error, RecordError):
        return error.kind
    if "no such file" in str(error).lower():
        return "missing file"
    if isinstance(error, ImageError | OSError | SyntaxError):  # the last two are Pillow's
        return "broken picture"
    return "malformed conversation" if isinstance(error, ValueError) else "unusable record"


def reason_of(error: BaseException) -> str:
    """What is wrong with it, in one line; with the error's type where that is no message meant for people."""
    meant = isinstance(error, ValueError | OSError)
    return one_line(error) if meant else f"{type(error).__name__}: {one_line(error)}"


# --------------------------------------------------------------------------------------------- conversation files


class JsonRecords(Sequence[dict[str, Any]]):
    """The objects of a JSON-lines file, or of a file that is one JSON array, parsed when asked for.

    Of JSON lines only where each begins is kept; an array must be read whole, and is kept as text. Either way no
    million of objects is copied into every worker.

    Raises:
        ValueError: the file cannot be read, or is no JSON array where it begins like one.
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
        """Anew each time: workers that share a file would share its position."""
        return self.path.open("rb") if self._text is None else io.BytesIO(self._text)

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: Any) -> Any:
        start, end = self._spans[index].tolist()
        with self._open() as lines:
            lines.seek(start)
            return self._parse(lines.read(end - start))

    def texts(self) -> Iterator[bytes]:
        """Every record as it is written, in one pass over the file."""
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
        """The pictures of all records that can be read, in order."""
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
        raise ValueError(f"{path}: begins as a JSON array but is none ({one_line(error)})") from None
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in found)


def _spans(lines: Iterable[bytes]) -> NDArray[np.int64]:
    """`[lines, 2]`: where each line that is not blank begins and ends."""
    spans, at = [], 0
    for line in lines:
        if line.strip():
            spans.append((at, at + len(line)))
        at += len(line)
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


class ConversationFile(Source):
    """InternVL's JSONL or LLaVA's JSON: `{"id", "image", "conversations": [{"from", "value"}, ...]}` a record.

    Args:
        name: of the source.
        annotation: the file, JSON lines or one array.
        images: folder that a record's `image`, a path or a list of paths, is relative to.
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
        """Of the file's bytes, and of each picture's path and size in bytes."""
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
    """Refuse what is no path of a local file: data files may not send this machine to addresses."""
    if not isinstance(path, str) or not path:
        raise malformed(f"a picture is no path but {type(path).__name__}")
    if "://" in path or path.startswith("data:"):
        raise RecordError(
            "picture by address", f"{path[:60]}: only local files are opened; download it first"
        )


def _bytes_of(path: str | Path) -> int:
    """-1 of a file that is not there. Strings: among millions, making a Path takes longer than looking."""
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except (OSError, ValueError):
        return -1


def open_internvl(meta: Path) -> list[tuple[Source, float]]:
    """The sources of an InternVL meta JSON with their weights: `{name: {root, annotation, repeat_time, ...}}`.

    `root` and `annotation` are relative to the meta file. `length` is not needed; `data_augment` and
    `max_dynamic_patch` have no counterpart here (tiling is the processor's) and are named in a printed line where they
    ask for something.

    Raises ValueError when the file is none, or an annotation cannot be read.
    """
    entries = _read_json(meta)
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{meta}: an InternVL meta file is one object of sources, this is none")
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
    """The pictures of a folder and the folders below it, in name order, without a word: to be labelled.

    Attributes:
        refused: files that are no pictures by their name; hidden ones are passed over.

    Raises ValueError when the folder holds no picture.
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
        """Of every picture's path and size in bytes."""
        lines = [f"{self._id(index)} {_bytes_of(path)}\n" for index, path in enumerate(self.files)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------- datasets


class RowReader:
    """Rows of a `datasets` dataset into records, by a map of columns.

    Args:
        name: of the source.
        columns: which column is the `image` (a picture, a path, or a list of them), and either `question` and `answer`
            (text or a list, of which the first is the label and all are kept as accepted answers) or `messages`;
            `id` if there is one.
        images: folder that paths are relative to.

    Raises:
        ValueError: an unknown key, or no way to a conversation.
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
        """Raise ValueError when the dataset lacks a column."""
        for key, column in self.columns.items():
            if column not in have:
                raise ValueError(f"{self.name}: no column {column!r} for {key}; it has {', '.join(have)}")

    def undecoded(self, dataset: Any) -> Any:
        """The dataset with pictures left as bytes or paths."""
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
        """Raises ValueError or OSError when the row cannot be used."""
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
    """A map-style `datasets` dataset."""

    def __init__(self, dataset: Any, reader: RowReader) -> None:
        self.name, self._reader = reader.name, reader
        reader.check(dataset.column_names)
        # Only the mapped columns: the others may hold pictures of their own, which would be read for nothing.
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
        """Of all text and numbers, and of each embedded picture's number of bytes (or its path)."""
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
    """Of each picture of an Arrow column, its number of bytes and its path, without making Python bytes of it."""
    lengths: list[Any] = []
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths += pc.list_value_length(column).to_pylist()
        column = pc.list_flatten(column)
    if not pa.types.is_struct(column.type):
        return lengths + column.to_pylist()
    sizes = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
    return lengths + sizes + pc.struct_field(column, "path").to_pylist()


def load_rows(name: str, path: str, folder: Path, config: str | None, split: str, streaming: bool) -> Any:
    """A dataset by local path (relative to `folder`) or hub id, through `datasets`, without remote code.

    Local are a folder of `save_to_disk`, a Parquet, JSON, JSON-lines or Arrow file, and a folder of Parquet files.

    Raises ValueError, in one line, for whatever stops `datasets` from loading it.
    """
    local = folder / path
    try:
        if local.exists():
            return _local_rows(local, config, split, streaming)
        if local.is_absolute() or path.startswith((".", os.sep)) or path.count("/") > 1:
            raise FileNotFoundError("no such file or folder")
        from datasets import load_dataset

        return load_dataset(path, config, split=split, streaming=streaming)
    except Exception as error:  # the library raises nearly anything, down to errors of the network
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
