"""Hashes of files, weights and model folders, which detect whether they have changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def hash_file(path: Path) -> str:
    """Return the SHA-256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256 over the names and bytes of files, independent of their order."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        digest.update(f"{path.name} {hash_file(path)}\n".encode())
    return digest.hexdigest()


def hash_model_folder(folder: Path) -> str:
    """Return the SHA-256 over the weights and configuration of a model folder, or the name of a model not on disk."""
    return hash_files(_model_files(folder)) if folder.is_dir() else str(folder)


def former_model_hash(folder: Path) -> str:
    """Return what `evaluate` and `curves` recorded for a model folder before they used `hash_model_folder`."""
    if not folder.is_dir():
        return str(folder)
    digest = hashlib.sha256()
    for path in _model_files(folder):
        digest.update(path.name.encode() + bytes.fromhex(hash_file(path)))
    return digest.hexdigest()


def _model_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")])


def hash_without_reading(config: Any, files: Iterable[Path], times: bool) -> str:
    """Return a SHA-256 of a model folder that reads no weights: the configuration, names and sizes of its files.

    Args:
        config: Content of `config.json`.
        files: The weight files.
        times: Whether to include the times of modification. Without them, weights of the same sizes are not told
            apart, but a folder may be copied or downloaded again.
    """
    status = {path.name: path.stat() for path in files}
    listed: Any = {name: found.st_size for name, found in status.items()}
    if times:
        listed = [[name, found.st_size, found.st_mtime_ns] for name, found in status.items()]
    return hashlib.sha256(json.dumps([config, listed], sort_keys=True).encode()).hexdigest()


def hash_tensors(named: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes, independent of their order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_module(module: nn.Module) -> str:
    """Return the SHA-256 over all parameters and buffers of a module."""
    return hash_tensors(module.state_dict().items())
