"""Merging from files to files in pieces, so that memory depends on the method and not on the model.

For n checkpoints and a base, memory holds AHEAD + 1 pieces of each in the stored dtype and n + 5 pieces in float32,
with PIECE values per piece. While TIES computes its threshold, memory also holds one whole tensor in float32. One
thread per checkpoint reads and hashes pieces while earlier pieces are merged and written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fcot_vl.common.errors import CheckpointError
from fcot_vl.merge.checkpoint import FLOATS, SIZES, Checkpoint, StoredTensor
from fcot_vl.merge.methods import Rule
from fcot_vl.merge.writer import copy_beside, kept_as, shard_writer, write_index

PIECE = 1 << 20  # number of values of a tensor held at once per checkpoint
AHEAD = 2  # number of pieces read ahead


def merge_folder(
    base: Checkpoint | None,
    checkpoints: Sequence[Checkpoint],
    output: Path,
    rule: Rule,
    dtype: torch.dtype | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Write the folder of the merged model; the checkpoints must have passed `same_architecture`.

    Weight files, their names and the other files are those of the base, or of the first checkpoint if the method needs
    no base. Where all checkpoints hold the same bytes, these bytes are written, so frozen weights are unchanged.

    Args:
        dtype: Dtype of the written floats. Default: the dtype of the base, tensor by tensor. Values are computed in
            float32 (float64 if stored as such) and rounded once.
        advance: Function called with the number of bytes of every merged piece, counted for one checkpoint.

    Returns:
        Content hashes, with that of the base first if there is one (see `content_hash`).

    Raises:
        CheckpointError: If integer tensors differ, values are not finite, or a file cannot be read or written.
    """
    sources = [*([base] if base else []), *checkpoints]
    reference = sources[0]
    digests: list[dict[str, str]] = [{} for _ in sources]
    targets = [
        replace(shard, tensors=tuple(kept_as(tensor, dtype) for tensor in shard.tensors))
        for shard in reference.shards
    ]
    with _one_thread(), contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(_Reader(source, digest))
            for source, digest in zip(sources, digests, strict=True)
        ]
        for shard, target in zip(reference.shards, targets, strict=True):
            with shard_writer(output / target.file, target) as append:
                for tensor, kept in zip(shard.tensors, target.tensors, strict=True):
                    into = FLOATS.get(kept.dtype)
                    for piece in _merge_tensor(readers, tensor, rule, into):
                        append(piece)
                        advance(piece.numel() * (SIZES[tensor.dtype] if into else 1))
    copy_beside(reference, output, dtype)
    if reference.indexed:
        write_index(output, targets)
    return [combined_hash(source, digest) for source, digest in zip(sources, digests, strict=True)]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Run arithmetic in the calling thread only.

    Pieces are small, and the disk is slower than one core. A thread pool that synchronizes after every operation waits
    for the thread that shares its core: with two other processes on two cores, a merge took 6 s instead of 0.5 s.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def content_hash(checkpoint: Checkpoint, advance: Callable[[int], None] = lambda _: None) -> str:
    """Return the SHA-256 over the names, dtypes, shapes and values of all tensors; reads all of them.

    The hash does not depend on how the tensors are distributed over files.
    """
    digests: dict[str, str] = {}
    with _Reader(checkpoint, digests) as reader:
        for shard in checkpoint.shards:
            for tensor in shard.tensors:
                for piece in reader.pieces(tensor.name):
                    advance(piece.numel())
    return combined_hash(checkpoint, digests)


def combined_hash(checkpoint: Checkpoint, digests: dict[str, str]) -> str:
    """Combine the hashes of the tensors into the hash of the checkpoint."""
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoint.tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} {digests[name]}\n".encode())
    return digest.hexdigest()


class _Reader:
    """Reader of the tensors of one checkpoint in pieces; its own thread reads and hashes ahead."""

    def __init__(self, checkpoint: Checkpoint, digests: dict[str, str]) -> None:
        self.checkpoint, self.digests = checkpoint, digests

    def __enter__(self) -> _Reader:
        self.files = self.checkpoint.open()
        self.thread = ThreadPoolExecutor(max_workers=1)
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown(cancel_futures=True)
        for file in self.files.values():
            os.close(file)

    def pieces(self, name: str, hashed: bool = True) -> Iterator[Tensor]:
        """Yield the bytes of a tensor, PIECE values at a time; a tensor without values is one empty piece."""
        tensor = self.checkpoint.tensors[name]
        digest = hashlib.sha256()

        def read(start: int) -> Tensor:
            piece = self.checkpoint.read(self.files, tensor, start, min(start + PIECE, tensor.elements))
            if hashed:
                digest.update(piece.numpy().data)
            return piece

        waiting: deque[Future[Tensor]] = deque()
        for start in range(0, max(1, tensor.elements), PIECE):
            waiting.append(self.thread.submit(read, start))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if hashed:
            self.digests[name] = digest.hexdigest()


def _merge_tensor(
    readers: Sequence[_Reader], tensor: StoredTensor, rule: Rule, into: torch.dtype | None
) -> Iterator[Tensor]:
    """Yield the merged tensor, flat, in pieces: floats as `into`, others as the bytes shared by all checkpoints."""
    stored = [reader.checkpoint.tensors[tensor.name] for reader in readers]
    own = FLOATS.get(tensor.dtype)
    combine = None if own is None else rule.combiner(tensor.name, lambda i: _delta(readers, tensor.name, i))
    for pieces in zip(*(reader.pieces(tensor.name) for reader in readers), strict=True):
        differing = next((i for i, piece in enumerate(pieces) if not _same(stored, pieces, i)), None)
        if own is None or into is None or combine is None:
            if differing is not None:
                raise CheckpointError(
                    f"{readers[differing].checkpoint.folder}: {tensor.name} ({tensor.dtype}) differs from that in "
                    f"{readers[0].checkpoint.folder}; whole numbers, and those of a quantized model, cannot be averaged"
                )
            yield pieces[0]
            continue
        if differing is None:
            yield pieces[0].view(own).to(into)
            continue
        work = torch.promote_types(own, torch.float32)
        floats = [piece.view(FLOATS[s.dtype]).to(work) for piece, s in zip(pieces, stored, strict=True)]
        del pieces
        merged = combine(floats).to(into)
        del floats
        if not torch.isfinite(merged).all():
            raise CheckpointError(
                f"{tensor.name}: the merged values are not all finite in {str(into).removeprefix('torch.')}; look for "
                "NaN in the checkpoints, or give --dtype float32"
            )
        yield merged


def _same(stored: Sequence[StoredTensor], pieces: Sequence[Tensor], i: int) -> bool:
    return i == 0 or (stored[i].dtype == stored[0].dtype and torch.equal(pieces[i], pieces[0]))


def _delta(readers: Sequence[_Reader], name: str, i: int) -> Tensor:
    """Return task vector i of a whole tensor, flat, float32; the base is the first reader."""
    base, one = (reader.checkpoint.tensors[name] for reader in (readers[0], readers[i + 1]))
    delta, done = torch.empty(one.elements), 0
    both = (readers[0].pieces(name, hashed=False), readers[i + 1].pieces(name, hashed=False))
    for first, second in zip(*both, strict=True):
        values = second.view(FLOATS[one.dtype]).float().sub_(first.view(FLOATS[base.dtype]))
        delta[done : done + len(values)] = values
        done += len(values)
    return delta
