"""Read the configuration of an original checkpoint folder and the location of every tensor, without reading weights.

All file errors are found here, before anything is written: a missing or truncated shard, an index that names a file
outside the folder, or a tensor that is not where the index says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fcot_vl.common.errors import CheckpointError, one_line
from fcot_vl.common.hashing import hash_without_reading


@dataclass(frozen=True)
class OriginalTensor:
    """Location of a tensor.

    Attributes:
        name: Name of the tensor.
        shard: Name of the file.
        shape: Shape as stored.
    """

    name: str
    shard: str
    shape: tuple[int, ...]


class Checkpoint:
    """A folder with `config.json` and one weight file, or several weight files with an index.

    Args:
        folder: Folder of the original checkpoint.
        allow_bin: Whether to read `.bin` files (pickle, opened with `weights_only=True`) if there is no safetensors
            file.

    Attributes:
        config: Content of `config.json`.
        shards: Names of the weight files, sorted.
        tensors: Every stored tensor by name.

    Raises:
        CheckpointError: If a file is missing, truncated or inconsistent (see the module docstring).
    """

    def __init__(self, folder: str | Path, allow_bin: bool = False) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise CheckpointError(
                f"{self.folder}: no such folder; give the folder of a downloaded checkpoint"
            )
        self._unpickled: tuple[Path, dict[str, Tensor]] | None = None
        self.config = read_json(self.folder / "config.json")
        self.shards, listed = self._find_shards(allow_bin)
        self.tensors: dict[str, OriginalTensor] = {}
        for shard in self.shards:
            for tensor in self._header(shard):
                if tensor.name in self.tensors:
                    raise CheckpointError(
                        f"{self.folder}: {tensor.name} is in both {self.tensors[tensor.name].shard} and {shard}"
                    )
                self.tensors[tensor.name] = tensor
        for name, shard in listed.items():
            if name not in self.tensors or self.tensors[name].shard != shard:
                raise CheckpointError(f"{self.folder / shard}: {name} is not in it, though the index says so")

    def read(self, name: str) -> Tensor:
        """Read one tensor into its own memory, in the stored dtype."""
        stored = self.tensors[name]
        path = self.folder / stored.shard
        if path.suffix == ".bin":
            return self._unpickle(path)[name].clone(memory_format=torch.contiguous_format)
        with safe_open(
            path, framework="pt"
        ) as file:  # reopened for each tensor, which releases earlier mappings
            tensor: Tensor = file.get_tensor(name)
            return tensor.clone()

    def fingerprint(self) -> str:
        """Return a hash of the configuration and of all file names and sizes, to detect a different checkpoint."""
        return hash_without_reading(self.config, (self.folder / shard for shard in self.shards), times=False)

    def _find_shards(self, allow_bin: bool) -> tuple[list[str], dict[str, str]]:
        """Return the weight files and, if there is an index, its mapping from tensors to files."""
        kinds = [("model.safetensors", "model.safetensors.index.json")]
        if allow_bin:
            kinds.append(("pytorch_model.bin", "pytorch_model.bin.index.json"))
        for single, index in kinds:
            if (self.folder / index).exists():
                return self._read_index(self.folder / index)
            if (self.folder / single).exists():
                return [single], {}
        if not allow_bin and any(self.folder.glob("*.bin")):
            raise CheckpointError(
                f"{self.folder}: holds .bin files only, which are pickle and may run code; convert them to "
                "safetensors, or add --allow-bin if you trust where they come from"
            )
        raise CheckpointError(
            f"{self.folder}: no model.safetensors and no index of shards found; download the checkpoint again"
        )

    def _read_index(self, path: Path) -> tuple[list[str], dict[str, str]]:
        listed = read_json(path).get("weight_map")
        if not isinstance(listed, dict) or not listed or not all(isinstance(v, str) for v in listed.values()):
            raise CheckpointError(f"{path}: no weight_map of tensor names to files in it")
        shards = sorted(set(listed.values()))
        for shard in shards:
            if Path(shard).name != shard or Path(shard).suffix not in (".safetensors", ".bin"):
                raise CheckpointError(f"{path}: names {shard!r}, which is no weight file of this folder")
            if not (self.folder / shard).is_file():
                raise CheckpointError(f"{self.folder / shard}: missing, though {path.name} names it")
        return shards, listed

    def _header(self, shard: str) -> Iterator[OriginalTensor]:
        path = self.folder / shard
        if path.suffix == ".bin":
            for name, tensor in self._unpickle(path).items():
                yield OriginalTensor(name, shard, tuple(tensor.shape))
            return
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - a safetensors file is not a dict
                    yield OriginalTensor(name, shard, tuple(file.get_slice(name).get_shape()))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path}: not a complete safetensors file ({one_line(error)}); download it again"
            ) from None

    def _unpickle(self, path: Path) -> dict[str, Tensor]:
        """Return the memory-mapped tensors of a `.bin` file.

        The last file stays open because tensors are read file by file.
        """
        if self._unpickled is not None and self._unpickled[0] == path:
            return self._unpickled[1]
        self._unpickled = None
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises many exception types for a broken file
            raise CheckpointError(f"{path}: cannot be read as weights ({one_line(error)})") from None
        if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
            raise CheckpointError(f"{path}: does not hold tensors by name; download it again")
        self._unpickled = path, loaded
        return loaded


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: If the file cannot be read; the message names it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({one_line(error)})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value
