"""Writing of a merged folder: safetensors files appended tensor by tensor, and the files next to the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from fcot_vl.common.errors import CheckpointError, one_line
from fcot_vl.common.files import replacing, write_json
from fcot_vl.merge.checkpoint import FLOATS, INDEX, Checkpoint, Shard, StoredTensor

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


@contextmanager
def shard_writer(path: Path, shard: Shard) -> Iterator[Callable[[Tensor], None]]:
    """Write a safetensors file from its first byte to its last; the file appears on disk complete or not at all.

    Yields a function that appends the next values of the file. They must be contiguous and have the dtype announced in
    `shard`.

    Args:
        path: Path of the file.
        shard: Names, dtypes and shapes, in the order in which their bytes are appended.

    Raises:
        CheckpointError: If the file cannot be written, for example because the disk is full; no partial file remains.
    """
    head = _header(shard)
    size = len(head) + sum(tensor.bytes for tensor in shard.tensors)
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            file.write(head)
            yield lambda values: _append(file, values)
            assert file.tell() == size, f"{path}: {file.tell()} bytes of {size}"
    except OSError as error:
        raise CheckpointError(
            f"{path}: could not be written ({one_line(error)}). Is the disk full? This file takes "
            f"{size / 1e9:,.3f} GB; the partial file was removed. Free some space, then rerun the same command"
        ) from None


def _append(file: BinaryIO, values: Tensor) -> None:
    file.write(values.flatten().view(torch.uint8).numpy().data)


def _header(shard: Shard) -> bytes:
    """Return the bytes before the first tensor, padded so that data begins at a multiple of eight bytes."""
    header: dict[str, Any] = {"__metadata__": shard.metadata} if shard.metadata else {}
    end = 0
    for tensor in shard.tensors:
        offsets = [end, end + tensor.bytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        end += tensor.bytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


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
