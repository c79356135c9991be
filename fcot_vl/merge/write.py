"""A merged folder's files: safetensors appended tensor by tensor, and what belongs beside the weights."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from fcot_vl.merge.checkpoint import FLOATS, INDEX, Checkpoint, CheckpointError, Shard, StoredTensor
from fcot_vl.message import one_line
from fcot_vl.stage import write_json

CODES = {dtype: code for code, dtype in FLOATS.items()}
BESIDE = (  # configuration, tokenizer, processor, code a configuration names, licence
    *("config.json", "generation_config.json", "*processor_config.json", "video_preprocessor_config.json"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model"),
    *("chat_template*", "*.py", "LICENSE*", "LICENCE*", "NOTICE*"),
)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def kept_as(tensor: StoredTensor, dtype: torch.dtype | None) -> StoredTensor:
    """The tensor as it is written: a float in `dtype` where one is given, anything else as it was."""
    if dtype is None or tensor.dtype not in FLOATS:
        return tensor
    return StoredTensor(tensor.name, tensor.shard, CODES[dtype], tensor.shape, 0)


class ShardWriter:
    """A safetensors file written from its first byte to its last; it appears whole, on the disk, or not at all.

    Args:
        path: the file.
        shard: names, dtypes and shapes, in the order in which their bytes are appended.

    Raises:
        CheckpointError: the file cannot be written, for example because the disk is full; nothing is left of it.
    """

    def __init__(self, path: Path, shard: Shard) -> None:
        self.path, self.partial = path, path.with_name(f".{path.name}.partial")
        header: dict[str, Any] = {"__metadata__": shard.metadata} if shard.metadata else {}
        end = 0
        for tensor in shard.tensors:
            header[tensor.name] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [end, end + tensor.bytes],
            }
            end += tensor.bytes
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)  # data begins on a multiple of eight
        self._head = len(text).to_bytes(8, "little") + text
        self.size = len(self._head) + end
        self._written = 0

    def __enter__(self) -> ShardWriter:
        try:
            self._file = self.partial.open("wb", buffering=0)
        except OSError as error:
            raise self._cannot(error) from None
        try:
            self._write(memoryview(self._head))
        except BaseException:
            self._drop()
            raise
        return self

    def append(self, values: Tensor) -> None:
        """The next values of the file; contiguous, in the dtype that was announced."""
        self._write(values.flatten().view(torch.uint8).numpy().data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._drop()
            return
        assert self._written == self.size, f"{self.path}: {self._written} bytes of {self.size}"
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self.partial.chmod(0o644)
            self.partial.replace(self.path)
        except OSError as failed:
            self._drop()
            raise self._cannot(failed) from None

    def _write(self, values: memoryview) -> None:
        done = 0
        try:
            while done < len(values):
                done += self._file.write(values[done:])
        except OSError as error:
            raise self._cannot(error) from None
        self._written += done

    def _drop(self) -> None:
        self._file.close()
        self.partial.unlink(missing_ok=True)

    def _cannot(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: could not be written ({one_line(error)}). Is the disk full? This file takes "
            f"{self.size / 1e9:,.3f} GB; nothing is left of it. Make room and give the same command again"
        )


def write_index(output: Path, shards: Iterable[Shard]) -> None:
    """Which tensor is in which file; written last, so that a folder that has it is whole."""
    listed = {tensor.name: shard.file for shard in shards for tensor in shard.tensors}
    size = sum(tensor.bytes for shard in shards for tensor in shard.tensors)
    write_json(output / INDEX, {"metadata": {"total_size": size}, "weight_map": listed})


def copy_beside(source: Checkpoint, output: Path, dtype: torch.dtype | None) -> None:
    """Copy what a model needs beside its weights; pickles are never copied. `config.json` names a new dtype.

    Raises:
        CheckpointError: a file cannot be copied.
    """
    for path in sorted({path for pattern in BESIDE for path in source.folder.glob(pattern)}):
        if path.is_file() and path.suffix not in PICKLES:
            try:
                shutil.copyfile(path, output / path.name)
            except OSError as error:
                raise CheckpointError(
                    f"{path}: could not be copied to {output} ({one_line(error)})"
                ) from None
    if dtype is not None and source.config:
        name = str(dtype).removeprefix("torch.")
        write_json(output / "config.json", _with_dtype({"dtype": name, **source.config}, name))


def _with_dtype(config: Any, name: str) -> Any:
    if not isinstance(config, dict):
        return config
    return {
        key: name if key in ("dtype", "torch_dtype") and isinstance(value, str) else _with_dtype(value, name)
        for key, value in config.items()
    }
