"""One record: images, messages, task, source. And the Parquet shards that hold records.

The lowest room of `data`: every synthesiser writes `Sample` shards, every stage reads them through `SampleFolder`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(pa.binary())),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("task", pa.string()),
        ("source", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("metric", pa.string()),
        ("density", pa.float64()),
        ("tiles", pa.int32()),
    ]
)


@dataclass
class Sample:
    """One record.

    Attributes:
        images: pages, RGB; they belong to the first user turn.
        messages: ``{"role": "user" | "assistant", "content": str}`` in turn.
        answers: accepted answers of the first question, for scoring.
        metric: ``cer``, ``anls``, ``relaxed`` or ``exact``.
        density: printed characters per visual token of the uncompressed teacher.
        tiles: tiles the teacher sees, thumbnail included.
    """

    id: str
    images: list[Image.Image]
    messages: list[dict[str, str]]
    task: str
    source: str
    answers: list[str]
    metric: str
    density: float
    tiles: int


def _row(sample: Sample) -> dict[str, Any]:
    encoded = []
    for image in sample.images:
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        encoded.append(buffer.getvalue())
    return {**vars(sample), "images": encoded}


def write_shard(path: Path, samples: Iterable[Sample]) -> None:
    """Write one Parquet shard with embedded PNG images; the file appears complete or not at all."""
    table = pa.Table.from_pylist([_row(s) for s in samples], schema=SCHEMA)
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)


class SampleFolder(Sequence[Sample]):
    """The records of a folder's ``*.parquet`` shards in name order, map-style; images decode when used.

    Raises FileNotFoundError when the folder holds no shard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.shards = sorted(self.folder.glob("*.parquet"))
        if not self.shards:
            raise FileNotFoundError(f"{self.folder}: no *.parquet shard here; run `fcot-vl synthesize` first")
        self._table = pa.concat_tables(
            [pq.read_table(s, schema=SCHEMA, memory_map=True) for s in self.shards]
        )

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = self._table.slice(index % len(self), 1).to_pylist()[0]
        images = [Image.open(io.BytesIO(encoded)) for encoded in row["images"]]
        row["images"] = [image if image.mode == "RGB" else image.convert("RGB") for image in images]
        return Sample(**row)
