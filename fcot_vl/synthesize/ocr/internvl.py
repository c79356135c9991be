"""Samples in InternVL's format: one JSON line and one image file per sample, and the meta file that its training reads.

They are made from finished shards, so that both forms contain the same samples and the same JPEG bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from fcot_vl.common.files import replacing, write_json

ROLES = {"user": "human", "assistant": "gpt"}


def write_internvl(shards: list[Path], folder: Path, name: str) -> int:
    """Write ``annotations.jsonl``, ``images/`` and ``meta.json`` to `folder`, and return the number of samples.

    Each line is ``{id, image, width, height, conversations}``, with `image` relative to `folder`. ``meta.json`` is
    ``{name: {root, annotation, repeat_time, length, data_augment}}`` with absolute paths.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    annotations = folder / "annotations.jsonl"
    count = 0
    with replacing(annotations) as partial, partial.open("w", encoding="utf-8") as file:
        for shard in shards:
            (folder / "images" / shard.stem).mkdir(exist_ok=True)
            for row in _rows(shard):
                file.write(json.dumps(_line(row, folder, shard.stem), ensure_ascii=False) + "\n")
                count += 1
    meta = {
        "root": str(folder.resolve()),
        "annotation": str(annotations.resolve()),
        "repeat_time": 1,
        "length": count,
        "data_augment": False,
    }
    write_json(folder / "meta.json", {name: meta})
    return count


def _rows(shard: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a shard in small batches, because a shard of pages has hundreds of megabytes."""
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(batch_size=32, columns=["id", "images", "messages"]):
            yield from batch.to_pylist()


def _line(row: dict[str, Any], folder: Path, shard: str) -> dict[str, Any]:
    data = row["images"][0]["bytes"]
    with Image.open(io.BytesIO(data)) as picture:
        (width, height), suffix = picture.size, "jpg" if picture.format == "JPEG" else "png"
    image = f"images/{shard}/{row['id']}.{suffix}"
    (folder / image).write_bytes(data)
    turns = [{"from": ROLES[turn["role"]], "value": turn["content"]} for turn in row["messages"]]
    turns[0]["value"] = "<image>\n" + turns[0]["value"]
    return {"id": row["id"], "image": image, "width": width, "height": height, "conversations": turns}
