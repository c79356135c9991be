"""Writing of a merged folder: safetensors files appended tensor by tensor, and the files next to the weights."""

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

from fcot_vl.common.errors import one_line
from fcot_vl.common.files import write_json
from fcot_vl.merge.checkpoint import FLOATS, INDEX, Checkpoint, CheckpointError, Shard, StoredTensor

CODES = {dtype: code for code, dtype in FLOATS.items()}
BESIDE = (  # configuration, tokenizer, processor, code named by a configuration, license
    *("config.json", "generation_config.json", "*processor_config.json", "video_preprocessor_config.json"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model"),
    *("chat_template*", "*.py", "LICENSE*", "LICENCE*", "NOTICE*"),
)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def kept_as(tensor: StoredTensor, dtype: torch.dtype | None) -> StoredTensor:
    """Return the description of a tensor as it is written: floats in `dtype` if given, anything else unchanged."""
    if dtype is None or tensor.dtype not in FLOATS:
        return tensor
    return StoredTensor(tensor.name, tensor.shard, CODES[dtype], tensor.shape, 0)


class ShardWriter:
    """Writer of a safetensors file from its first byte to its last; the file appears on disk complete or not at all.

    Args:
        path: Path of the file.
        shard: Names, dtypes and shapes, in the order in which their bytes are appended.

    Raises:
        CheckpointError: If the file cannot be written, for example because the disk is full; no partial file remains.
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
        text += b" " * (-len(text) % 8)  # data begins at a multiple of eight bytes
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
        """Append the next values of the file; they must be contiguous and have the dtype announced in `shard`."""
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
            f"{self.size / 1e9:,.3f} GB; the partial file was removed. Free some space, then rerun the same command"
        )


def write_index(output: Path, shards: Iterable[Shard]) -> None:
    """Write the index that maps each tensor to its file.

    The index is written last, so that a folder that has an index is complete.
    """
    listed = {tensor.name: shard.file for shard in shards for tensor in shard.tensors}
    size = sum(tensor.bytes for shard in shards for tensor in shard.tensors)
    write_json(output / INDEX, {"metadata": {"total_size": size}, "weight_map": listed})


def copy_beside(source: Checkpoint, output: Path, dtype: torch.dtype | None) -> None:
    """Copy the files that a model needs next to its weights. Pickles are never copied.

    If `dtype` is given, `config.json` names it.

    Raises:
        CheckpointError: If a file cannot be copied.
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
