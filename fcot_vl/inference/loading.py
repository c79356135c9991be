"""Loading of models for inference, and the tokens that end an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from fcot_vl.models.auto import family_of, load_processor
from fcot_vl.models.loading import checked


def load_for_inference(model: str | Path) -> tuple[Any, Any]:
    """Load a teacher or student and its processor: float32 on the CPU, bfloat16 on a GPU.

    Raises:
        ValueError: If the model belongs to no supported family or cannot be loaded; the message has one line.
    """
    family_of(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with checked(model):
        loaded = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype, trust_remote_code=False)
    return loaded.eval().to(device), load_processor(model)


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return every token that ends an answer: those of the tokenizer, the chat format and the generation settings."""
    configured = model.generation_config.eos_token_id
    stops = set(configured if isinstance(configured, list) else [configured])
    stops |= {tokenizer.eos_token_id, tokenizer.get_vocab().get("<|im_end|>")}
    return sorted(stop for stop in stops if stop is not None)
