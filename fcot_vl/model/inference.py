"""A model made ready to answer, and the tokens that end an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from fcot_vl.model.families import family_of, load_processor


def load_for_inference(model: str | Path) -> tuple[Any, Any]:
    """A teacher or student and its processor: float32 on the CPU, bfloat16 on a GPU.

    Raises ValueError for a model of no family here, and OSError, ValueError or SafetensorError, as transformers does,
    for weights that cannot be loaded.
    """
    family_of(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    loaded = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype)
    return loaded.eval().to(device), load_processor(model)


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the tokenizer's, the chat format's and the generation settings'."""
    configured = model.generation_config.eos_token_id
    stops = set(configured if isinstance(configured, list) else [configured])
    stops |= {tokenizer.eos_token_id, tokenizer.get_vocab().get("<|im_end|>")}
    return sorted(stop for stop in stops if stop is not None)
