"""The recorded original checkpoint, and loading of converted ones."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    InternVLForConditionalGeneration,
)

DATA = Path(__file__).resolve().parents[1] / "data"
REFERENCE = DATA / "internvl2-tiny-internlm2"


def load(folder: Path) -> InternVLForConditionalGeneration:
    model, info = InternVLForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32, attn_implementation="eager"
    )
    assert not any(info.values()), info
    return model.eval()


def assert_same_files(one: Path, other: Path) -> None:
    left, right = load_file(one), load_file(other)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]) and tensor.dtype == right[name].dtype, name
