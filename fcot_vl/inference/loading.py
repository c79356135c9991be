"""Loading of models for inference, and the tokens that end an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText

from fcot_vl.common.errors import one_line
from fcot_vl.models.auto import family_of, load_processor


def load_for_inference(model: str | Path) -> tuple[Any, Any]:
    """Load a teacher or student and its processor: float32 on the CPU, bfloat16 on a GPU.

    Raises:
        ValueError: If the model belongs to no supported family or cannot be loaded; the message has one line.
    """
    family_of(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    try:
        loaded = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype)
        processor = load_processor(model)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ValueError(f"{model}: the model cannot be loaded ({one_line(error)})") from None
    return loaded.eval().to(device), processor


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return every token that ends an answer: those of the tokenizer, the chat format and the generation settings."""
    configured = model.generation_config.eos_token_id
    stops = set(configured if isinstance(configured, list) else [configured])
    stops |= {tokenizer.eos_token_id, tokenizer.get_vocab().get("<|im_end|>")}
    return sorted(stop for stop in stops if stop is not None)
