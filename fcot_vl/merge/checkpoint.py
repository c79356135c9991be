"""Read a model folder as named tensors: locations from the file headers, weights in pieces and only on request.

This is the first step of merging. Files are read by offset (`pread`) instead of memory-mapped, so that memory holds
only the requested pieces. Format: https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcot_vl.common.errors import CheckpointError, one_line

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
OTHERS = {"BOOL": 1, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2}
OTHERS |= {"I32": 4, "U32": 4, "I64": 8, "U64": 8}  # bytes per element
SIZES = {code: dtype.itemsize for code, dtype in FLOATS.items()} | OTHERS
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000  # limit of the format, in bytes


@dataclass(frozen=True)
class StoredTensor:
    """Location of a tensor.

    Attributes:
        name: Name of the tensor.
        shard: Name of the file.
        dtype: Dtype as safetensors names it.
        shape: Shape of the tensor.
        begin: Offset in bytes from the start of the file.
    """

    name: str
    shard: str
    dtype: str
    shape: tuple[int, ...]
    begin: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * SIZES[self.dtype]


@dataclass(frozen=True)
class Shard:
    """One file: its tensors in file order, and the free-form metadata of its header."""

    file: str
    tensors: tuple[StoredTensor, ...]
    metadata: dict[str, str]


class Checkpoint:
    """A folder with `model.safetensors`, or several files with an index.

    Attributes:
        config: Content of `config.json`; empty if there is none.
        shards: The files, sorted by name.
        tensors: Every tensor by name.
        indexed: Whether there is an index.

    Raises:
        CheckpointError: If the folder or its safetensors files are missing, or a shard is missing, truncated or
            inconsistent with the index.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise CheckpointError(f"{self.folder}: no such folder; give the folder of a model")
        self.config = _json(self.folder / "config.json") if (self.folder / "config.json").exists() else {}
        self.indexed = (self.folder / INDEX).exists()
        listed = self._listed() if self.indexed else {}
        files = sorted(set(listed.values())) if listed else [self._single()]
        self.shards = [_read_header(self.folder, file) for file in files]
        self.tensors: dict[str, StoredTensor] = {}
        for shard in self.shards:
            for tensor in shard.tensors:
                if tensor.name in self.tensors:
                    first = self.tensors[tensor.name].shard
                    raise CheckpointError(f"{self.folder}: {tensor.name} is in both {first} and {shard.file}")
                self.tensors[tensor.name] = tensor
        for name, file in listed.items():
            if name not in self.tensors or self.tensors[name].shard != file:
                raise CheckpointError(
                    f"{self.folder / file}: {name} is not in it, though {INDEX} says so; download the folder again"
                )

    @property
    def bytes(self) -> int:
        """Total size of all tensors in bytes."""
        return sum(tensor.bytes for tensor in self.tensors.values())

    def open(self) -> dict[str, int]:
        """Open every shard for `read` and return the file descriptors by name; the caller closes them."""
        return {shard.file: os.open(self.folder / shard.file, os.O_RDONLY) for shard in self.shards}

    def read(self, files: dict[str, int], tensor: StoredTensor, start: int, stop: int) -> Tensor:
        """Read the elements `start` to `stop` of a flattened tensor as bytes `[(stop - start) * size]`.

        The bytes have their own memory.

        Raises:
            CheckpointError: If the file ends too early or cannot be read.
        """
        size = SIZES[tensor.dtype]
        piece = torch.empty((stop - start) * size, dtype=torch.uint8)
        into, done = piece.numpy().data, 0
        try:
            while done < len(into):
                got = os.preadv(files[tensor.shard], [into[done:]], tensor.begin + start * size + done)
                if got == 0:
                    raise OSError("the file ends in the middle of it")
                done += got
        except OSError as error:
            path = self.folder / tensor.shard
            raise CheckpointError(f"{path}: {tensor.name} cannot be read ({one_line(error)})") from None
        return piece

    def _single(self) -> str:
        if (self.folder / SINGLE).is_file():
            return SINGLE
        if any(self.folder.glob("*.bin")) or any(self.folder.glob("*.pt*")):
            raise CheckpointError(
                f"{self.folder}: holds pickle files (.bin, .pt), which may run code when they are read; save the model "
                "again with `save_pretrained`, which writes safetensors"
            )
        raise CheckpointError(f"{self.folder}: no {SINGLE} and no {INDEX} found; give the folder of a model")

    def _listed(self) -> dict[str, str]:
        """Return the mapping from tensors to files of the index."""
        path = self.folder / INDEX
        listed = _json(path).get("weight_map")
        if not isinstance(listed, dict) or not listed:
            raise CheckpointError(f"{path}: no weight_map of tensor names to files in it")
        for file in set(map(str, listed.values())):
            if Path(file).name != file or not file.endswith(".safetensors"):
                raise CheckpointError(f"{path}: names {file!r}, which is no safetensors file of this folder")
            if not (self.folder / file).is_file():
                raise CheckpointError(
                    f"{self.folder / file}: missing, though {INDEX} names it; download the folder again"
                )
        return listed


def _read_header(folder: Path, file: str) -> Shard:
    """Read the header of a shard.

    Raises:
        CheckpointError: If the header does not describe the file to its last byte.
    """
    path = folder / file
    try:
        with path.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            length = int.from_bytes(opened.read(8), "little")
            if not 2 <= length <= min(LONGEST_HEADER, size - 8):
                raise ValueError("the length of its header is impossible")
            header: dict[str, Any] = json.loads(opened.read(length))
        metadata = header.pop("__metadata__", {})
        tensors, end = [], 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            if entry["dtype"] not in SIZES:
                raise ValueError(f"{name} has the dtype {entry['dtype']}, which is not supported")
            tensor = StoredTensor(name, file, entry["dtype"], tuple(entry["shape"]), 8 + length + end)
            if entry["data_offsets"] != [end, end + tensor.bytes]:
                raise ValueError(f"{name} has a size that does not match its shape")
            tensors.append(tensor)
            end += tensor.bytes
        if 8 + length + end != size:
            raise ValueError(f"it has {size:,} bytes, but its header describes {8 + length + end:,}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a complete safetensors file ({one_line(error)}); download or save it again"
        ) from None
    return Shard(file, tuple(tensors), metadata)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({one_line(error)})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value
