"""Greedy decoding of answers, for every command that answers questions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fcot_vl.inference.loading import stop_ids


def pad_id(model: Any, tokenizer: Any) -> int:
    """Return the token that pads prompts and ended answers: the tokenizer's, or else one that ends an answer."""
    pad: int | None = tokenizer.pad_token_id
    return stop_ids(model, tokenizer)[0] if pad is None else pad


@torch.inference_mode()
def decode_greedily(
    model: Any, tokenizer: Any, inputs: dict[str, Tensor], max_new_tokens: int, **options: Any
) -> list[list[int]]:
    """Return the tokens of the answer to each row of `inputs`, up to and including the token that ends it.

    Args:
        inputs: Left-padded inputs on the model's device, with `input_ids` `[B, L]`.
        options: Further arguments of `generate()`: a cache, logits processors.
    """
    stops = stop_ids(model, tokenizer)
    made = model.generate(
        **inputs,
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=stops,
        pad_token_id=pad_id(model, tokenizer),
        **options,
    )
    answers: list[list[int]] = made[:, inputs["input_ids"].shape[1] :].tolist()
    return [
        tokens[: next((i + 1 for i, token in enumerate(tokens) if token in stops), len(tokens))]
        for tokens in answers
    ]
