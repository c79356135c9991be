"""Hashes that detect whether weights have changed; the hashes of files are defined in `fcot_vl.common.stage`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fcot_vl.common.stage import hash_file, hash_files

__all__ = ["hash_file", "hash_files", "hash_module", "hash_tensors"]


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
