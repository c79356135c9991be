"""Sample (images, messages, task, source) and the Parquet shards that store samples.

This is the lowest layer of `data`. Every synthesiser writes `Sample` shards, and every stage reads them through
`SampleFolder`.
"""

from __future__ import annotations

import hashlib
import io
import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from fcot_vl.common.errors import one_line
from fcot_vl.common.files import replacing
from fcot_vl.common.hashing import hash_files
from fcot_vl.common.text import clean_text
from fcot_vl.data.chat_format import images_so_far, malformed
from fcot_vl.data.images import LazyImage

_text = {"dtype": "string", "_type": "Value"}
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("task", pa.string()),
        ("source", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("metric", pa.string()),
        ("density", pa.float64()),
        ("tiles", pa.int32()),
    ],
    # For `datasets.load_dataset("parquet", ...)`, which then returns images instead of bytes.
    metadata={
        "huggingface": json.dumps(
            {
                "info": {
                    "features": {
                        "id": _text,
                        "images": {"feature": {"_type": "Image"}, "_type": "List"},
                        "messages": {"feature": {"role": _text, "content": _text}, "_type": "List"},
                        "task": _text,
                        "source": _text,
                        "answers": {"feature": _text, "_type": "List"},
                        "metric": _text,
                        "density": {"dtype": "float64", "_type": "Value"},
                        "tiles": {"dtype": "int32", "_type": "Value"},
                    }
                }
            }
        )
    },
)
ENCODINGS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 1},
    "JPEG": {"quality": 90},
}


@dataclass
class Sample:
    """One sample.

    Attributes:
        images: RGB pages in the order of the marks `<image>` in the user turns. Without marks, they are at the start of
            the first user turn.
        messages: Messages ``{"role": "user" | "assistant", "content": str}`` in order. The first may be a ``system``
            turn.
        task: Name of the task, such as ``transcription``.
        source: Source of the sample.
        answers: Accepted answers to the first question, for scoring. Empty if the sample is only used for training.
        metric: ``cer``, ``anls``, ``relaxed`` or ``exact``, for scoring.
        density: Printed characters per visual token of the uncompressed teacher.
        tiles: Number of tiles that the teacher sees, including the thumbnail.
    """

    id: str
    images: list[Image.Image]
    messages: list[dict[str, str]]
    task: str
    source: str
    answers: list[str] = field(default_factory=list)
    metric: str = ""
    density: float | None = None
    tiles: int | None = None

    @property
    def question(self) -> str:
        """Content of the first user turn."""
        return next(message["content"] for message in self.messages if message["role"] == "user")

    @property
    def question_images(self) -> list[Image.Image]:
        """Images that the first user turn shows: all, unless the conversation marks some of them later."""
        first = [message for message in self.messages if message["role"] == "user"][:1]
        return self.images[: images_so_far(first, self.messages)]


@dataclass(frozen=True)
class Origin:
    """Origin of a sample: the name of its source, and its id and index there."""

    source: str
    id: str
    index: int


def _row(sample: Sample, encoding: str) -> dict[str, Any]:
    encoded = []
    for image in sample.images:
        buffer = io.BytesIO()
        image.save(buffer, encoding, **ENCODINGS[encoding])
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    texts = {
        "id": clean_text(sample.id),
        "messages": [{key: clean_text(text) for key, text in turn.items()} for turn in sample.messages],
        "task": clean_text(sample.task),
        "source": clean_text(sample.source),
        "answers": [clean_text(answer) for answer in sample.answers],
    }
    return {**vars(sample), **texts, "images": encoded}


def write_shard(path: Path, samples: Iterable[Sample], encoding: str = "PNG") -> None:
    """Write one Parquet shard with embedded images. The file appears complete or not at all.

    Args:
        encoding: Encoding of the images: ``PNG`` (exact) or ``JPEG`` (quality 90, a tenth of the size and time for a
            scan).
    """
    table = pa.Table.from_pylist([_row(s, encoding) for s in samples], schema=SCHEMA)
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def _read_shard(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, schema=SCHEMA, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: not a whole shard of samples ({one_line(error)}); delete it and write it again"
        ) from None


class StoredImage(LazyImage):
    """Image of a shard, decoded on first use. As with every `LazyImage`, damaged images are refused."""


class Samples(Sequence[Sample]):
    """Samples by index or slice, from any source. Images are decoded on first use."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Read sample `index`, counted from 0.

        Raises:
            ValueError: If the sample cannot be used.
            OSError: If the sample cannot be used.
        """

    @abstractmethod
    def origin(self, index: int) -> Origin:
        """Return the origin of sample `index` without opening its images. This also works for unusable samples."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Compute the SHA-256 of the samples' content.

        Images may be represented by cheap identifiers such as their size.
        """

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self.read(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.read(index % len(self))


def _refuse_null(row: dict[str, Any], where: str) -> None:
    """Refuse a row of a shard that others wrote with nothing in a column that is used.

    Raises:
        SampleError: If there is one.
    """
    for column in ("id", "images"):
        if row[column] is None:
            raise malformed(f"{where}: nothing in column {column!r}")
    if any(image is None or image["bytes"] is None for image in row["images"]):
        raise malformed(f"{where}: an image without bytes in column 'images'")
    if any(turn is None or None in turn.values() for turn in row["messages"] or ()):
        raise malformed(f"{where}: a turn without a role or without text in column 'messages'")
    if None in (row["answers"] or ()):
        raise malformed(f"{where}: nothing as an answer in column 'answers'")
    empty: dict[str, Any] = {"messages": [], "answers": [], "task": "", "source": "", "metric": ""}
    for column, nothing in empty.items():  # others need not know these columns
        row[column] = nothing if row[column] is None else row[column]


class SampleFolder(Samples):
    """Samples of the ``*.parquet`` shards of a folder, in name order, map-style. Images are decoded on first use.

    Raises:
        FileNotFoundError: If the folder has no shard.
        ValueError: If a shard cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.shards = sorted(self.folder.glob("*.parquet"))
        if not self.shards:
            raise FileNotFoundError(
                f"{self.folder}: no *.parquet shard here; give a folder that `fcot-vl synthesize`, `label`, `rewrite` "
                "or `cot` wrote, or a JSON, JSON-lines or mixture YAML file where the command takes one"
            )
        self._table = pa.concat_tables([_read_shard(shard) for shard in self.shards])

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def origin(self, index: int) -> Origin:
        row = self._table.select(["source", "id"]).slice(index, 1).to_pylist()[0]
        return Origin(row["source"], row["id"], index)

    def tasks_of_samples(self) -> list[str]:
        """Return the task of each sample without opening its images."""
        return [task or "" for task in self._table.column("task").to_pylist()]

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the names and bytes of the shards."""
        return hash_files(self.shards)

    def read(self, index: int) -> Sample:
        row = self._table.slice(index, 1).to_pylist()[0]
        _refuse_null(row, f"{self.folder}: sample {index}")
        label = f"{self.folder}: the image of sample {row['id']}"
        row["images"] = [StoredImage(image["bytes"], label) for image in row["images"]]
        return Sample(**row)


class TaskFolder(SampleFolder):
    """Samples of a folder that have one of the given tasks, in the order of the folder.

    Raises:
        ValueError: If one of the tasks occurs in no sample. The errors of `SampleFolder` are raised as well.
    """

    def __init__(self, folder: Path, tasks: Sequence[str]) -> None:
        super().__init__(folder)
        column = self._table.column("task")
        known = sorted(task for task in column.unique().to_pylist() if task)
        if unknown := sorted(set(tasks) - set(known)):
            raise ValueError(
                f"{folder}: no sample of task {unknown[0]!r}; it has {', '.join(known) or 'no tasks'}"
            )
        self.tasks = sorted(set(tasks))
        self._table = self._table.filter(pc.is_in(column, pa.array(self.tasks, pa.string())))

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the fingerprint of the folder and the tasks."""
        return hashlib.sha256(f"{super().fingerprint()} {self.tasks}".encode()).hexdigest()
