"""A model's configuration, the model made ready to answer, and the tokens that end an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from fcot_vl.message import one_line
from fcot_vl.model.processing import FCoTVLProcessor


def read_config(model: str | Path) -> Any:
    """The configuration of a model folder or hub id. Raises ValueError, in one line, if there is none."""
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{model}: not a model ({one_line(error)})") from None


def load_for_inference(model: str | Path) -> tuple[Any, FCoTVLProcessor]:
    """A teacher or student and its processor: float32 on the CPU, bfloat16 on a GPU.

    Raises OSError, ValueError or SafetensorError, as transformers does, for a folder that holds no such model.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    loaded = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype)
    return loaded.eval().to(device), FCoTVLProcessor.from_pretrained(model)


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the tokenizer's, the chat format's and the generation settings'."""
    configured = model.generation_config.eos_token_id
    stops = set(configured if isinstance(configured, list) else [configured])
    stops |= {tokenizer.eos_token_id, tokenizer.get_vocab().get("<|im_end|>")}
    return sorted(stop for stop in stops if stop is not None)
