"""Time and peak memory of a merge of random checkpoints, against a naive implementation and a copy of the same bytes.

    python benchmarks/merge.py FOLDER [--size small|2B] [--method average|task-arithmetic|ties] [--checkpoints N]

Writes random bfloat16 checkpoints in the shapes of InternVL2-2B (4.4 GB each; `small`: 0.7) into FOLDER, and merges
them with each implementation in a process of its own, in turn. Files are dropped from the page cache before, so that
they are read from the disk; seconds exclude imports. Naive: load every state dict, average it in float32 tensor by
tensor, save it with `save_file`. Lower bound: read every checkpoint and write the bytes of one to the disk (`cat`,
`sync`). Bound on memory: (n + 1) times the largest tensor in float32, in addition to a process that has only imported.
The last line is JSON. FOLDER needs space for n + 1 checkpoints; they are deleted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from fcot_vl.common.provenance import provenance
from fcot_vl.merge.checkpoint import Shard, StoredTensor
from fcot_vl.merge.writer import ShardWriter

GB = 1e9
IMPORTS = """
import os, resource, sys, time
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from fcot_vl.merge.config import MergeConfig
from fcot_vl.stages.merge import merge
started = time.monotonic()
"""
DONE = "\nprint(time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
NAIVE = """
states = [load_file(path) for path in sys.argv[2:]]
save_file({n: (sum(s[n].float() for s in states) / len(states)).to(states[0][n].dtype) for n in states[0]}, sys.argv[1])
file = os.open(sys.argv[1], os.O_RDONLY); os.fsync(file)
"""
FLOOR = 'set -e; for path in "${@:2}"; do cat "$path" > /dev/null; done; cat "$2" > "$1"; sync "$1"'


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Return tensor shapes of decoder and ViT of InternVL2-2B, with that many layers each (published: 24)."""
    wide, inner, kv, vision = 2048, 8192, 1024, 1024
    rows = 92_553 if layers == 24 else 9_255
    found: dict[str, tuple[int, ...]] = {
        "embed": (rows, wide),
        "head": (rows, wide),
        "projector": (wide, 4096),
    }
    for i in range(layers):
        found |= {f"decoder.{i}.{n}": (wide, wide) for n in ("q", "o")}
        found |= {f"decoder.{i}.{n}": (kv, wide) for n in ("k", "v")}
        found |= {f"decoder.{i}.{n}": (inner, wide) for n in ("gate", "up")} | {
            f"decoder.{i}.down": (wide, inner)
        }
        found |= {f"decoder.{i}.{n}": (wide,) for n in ("norm1", "norm2")}
        found |= {f"vit.{i}.{n}": (vision, vision) for n in ("q", "k", "v", "o")}
        found |= {f"vit.{i}.up": (4096, vision), f"vit.{i}.down": (vision, 4096)}
    return found


def write_random(folder: Path, layers: int, seed: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    tensors = tuple(StoredTensor(n, "model.safetensors", "BF16", s, 0) for n, s in shapes(layers).items())
    draw = torch.Generator().manual_seed(seed)
    with ShardWriter(
        folder / "model.safetensors", Shard("model.safetensors", tensors, {"format": "pt"})
    ) as writer:
        for tensor in tensors:
            writer.append(torch.empty(tensor.elements, dtype=torch.bfloat16).uniform_(-1, 1, generator=draw))
    return folder / "model.safetensors"


def forget(paths: list[Path]) -> None:
    """Drop files from the page cache."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def python(script: str, paths: list[Path], *arguments: str) -> tuple[float, float]:
    """Run a script in a process of its own; return (seconds without imports, peak GB)."""
    forget(paths)
    command = [sys.executable, "-c", IMPORTS + script + DONE, *arguments]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, kilobytes = ran.stdout.splitlines()[-1].split()
    return float(seconds), int(kilobytes) * 1024 / GB


def copied(target: str, paths: list[Path]) -> tuple[float, float]:
    forget(paths)
    started = time.monotonic()
    subprocess.run(["bash", "-c", FLOOR, "floor", target, *map(str, paths)], check=True)
    return time.monotonic() - started, 0.0


def measure(folder: Path, size: str, method: str, n: int, rounds: int) -> dict[str, Any]:
    layers = {"2B": 24, "small": 4}[size]
    paths = [write_random(folder / f"checkpoint-{i}", layers, i) for i in range(n)]
    out = folder / "out"
    folders = ", ".join(f"Path({str(path.parent)!r})" for path in paths)
    base = "" if method == "average" else f", base=Path({str(paths[0].parent)!r})"
    ours = f"merge(MergeConfig([{folders}], Path({str(out)!r}), method={method!r}{base}))"
    imported = python("", paths)[1]
    ways: dict[str, list[tuple[float, float]]] = {"ours": [], "naive": [], "floor": []}
    for _ in range(rounds):
        for way, found in ways.items():
            out.mkdir()
            target = str(out / "model.safetensors")
            if way == "ours":
                found.append(python(ours, paths))
            elif way == "floor":
                found.append(copied(target, paths))
            elif method == "average":
                found.append(python(NAIVE, paths, target, *map(str, paths)))
            shutil.rmtree(out)
    for path in paths:
        shutil.rmtree(path.parent)
    largest = max(4 * math.prod(shape) for shape in shapes(layers).values()) / GB
    result: dict[str, Any] = {"size": size, "method": method, "checkpoints": n, "rounds": rounds}
    result |= {"gb_each": round(sum(2 * math.prod(s) for s in shapes(layers).values()) / GB, 2)}
    for way, found in ways.items():
        if found:
            result[f"{way}_seconds"] = round(statistics.median(s for s, _ in found), 1)
            result[f"{way}_range"] = [round(min(found)[0], 1), round(max(found)[0], 1)]
            result[f"{way}_peak_gb"] = round(max(p for _, p in found), 2) if way != "floor" else None
    result |= {"imported_gb": round(imported, 2), "largest_float32_gb": round(largest, 2)}
    result["bound_gb"] = round(imported + (n + 1) * largest, 2)
    assert result["ours_peak_gb"] <= result["bound_gb"], result
    return result | {**provenance()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=["small", "2B"], default="small")
    parser.add_argument("--method", choices=["average", "task-arithmetic", "ties"], default="average")
    parser.add_argument("--checkpoints", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    print(json.dumps(measure(args.folder, args.size, args.method, args.checkpoints, args.rounds)))


if __name__ == "__main__":
    main()
