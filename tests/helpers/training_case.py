"""A small training case for the stage and fault tests: a few noisy pages and short runs over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fcot_vl.data.dataset import Sample, write_shard
from fcot_vl.stages.post_train import PostTrainConfig
from fcot_vl.stages.realign import RealignConfig

PAGES, BATCH = 10, 4  # three steps an epoch, the last one short


def write_pages(folder: Path, pages: int = PAGES) -> Path:
    """Pages of noise in two shards, one or several tiles each, with answers of different lengths."""
    random = np.random.default_rng(0)
    samples = []
    for index in range(pages):
        width = (100, 100, 230, 330)[index % 4]
        pixels = random.integers(0, 255, (100, width, 3), dtype=np.uint8)
        text = "".join(random.choice(list("abc 12\n"), int(random.integers(3, 30))))
        messages = [{"role": "user", "content": "Read."}, {"role": "assistant", "content": text}]
        image = Image.fromarray(pixels)
        samples.append(
            Sample(f"page-{index}", [image], messages, "transcribe", "test", [text], "cer", 1.0, 1)
        )
    folder.mkdir(parents=True)
    write_shard(folder / "a.parquet", samples[: pages // 2])
    write_shard(folder / "b.parquet", samples[pages // 2 :])
    return folder


def settings(output: Path, **overrides: Any) -> dict[str, Any]:
    """Two epochs of three steps with a checkpoint every two; clipping that bites."""
    defaults = {
        "output_dir": str(output),
        "packing": False,
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "max_grad_norm": 0.1,
        "save_steps": 2,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return {**defaults, **overrides}


def realign_config(output: Path, **overrides: Any) -> RealignConfig:
    return RealignConfig(**settings(output, **overrides))


def post_train_config(output: Path, **overrides: Any) -> PostTrainConfig:
    return PostTrainConfig(**settings(output, **overrides))


def record_denominators(monkeypatch: pytest.MonkeyPatch, module: Any, loss: str) -> list[float]:
    """Return a list to which every call of the function `loss` of `module` adds its denominator."""
    denominators: list[float] = []
    inner = getattr(module, loss)

    def recorded(*args: Any, denominator: float) -> Any:
        denominators.append(denominator)
        return inner(*args, denominator=denominator)

    monkeypatch.setattr(module, loss, recorded)
    return denominators


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    """Bit for bit."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    assert not differing, f"{len(differing)} tensors differ, among them {differing[0]}"
