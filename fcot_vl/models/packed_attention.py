"""Attention for packed sequences: several sequences in one row, each attending only to itself.

Attention runs on one sequence after the other with the causal kernel, so nothing is computed across sequences and no
`[length, length]` mask is built. All other parts of a decoder work on single tokens. Positions restart in every
sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

PACKED = "fcot_vl_packed"  # name of this attention in transformers


def packed_attention_forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    sequence_lengths: Sequence[int],
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Run transformers' SDPA attention sequence by sequence.

    Args:
        query: `[1, heads, length, head width]`; key and value may have fewer heads.
        attention_mask: Not read.
        sequence_lengths: Number of tokens of each sequence in the row; they sum to its length.
        kwargs: Further arguments of transformers' attention. With `sliding_window`, a token attends to that many tokens
            of its sequence, itself included.

    Returns:
        `[1, length, heads, head width]`, and None in place of attention weights.
    """
    window = kwargs.get("sliding_window")
    parts = zip(*(states.split(list(sequence_lengths), dim=2) for states in (query, key, value)), strict=True)
    return torch.cat(
        [sdpa_attention_forward(module, *part, _window_mask(part[0], window), **kwargs)[0] for part in parts],
        dim=1,
    ), None


def _window_mask(query: Tensor, window: int | None) -> Tensor | None:
    """Return the mask `[1, 1, length, length]` of causal attention in a window, or None if all tokens lie within it."""
    length = query.shape[2]
    if window is None or length <= window:
        return None
    at = torch.arange(length, device=query.device)
    distance = at[:, None] - at
    return ((distance >= 0) & (distance < window))[None, None]


AttentionInterface.register(PACKED, packed_attention_forward)


def packed_inputs(
    body: Any, input_ids: Tensor, sequence_lengths: Sequence[int], **layout: Tensor
) -> dict[str, Any]:
    """Return the inputs that a student without its head needs, besides `input_ids`, for a row of packed sequences.

    The first call adds hooks to the decoder. They use `PACKED` in calls with `sequence_lengths`, and in no others.

    Args:
        body: `StudentBody` to prepare the inputs for.
        input_ids: `[1, length]`.
        sequence_lengths: Number of tokens of each sequence.
        layout: Information on the images that the family needs (see `image_layout` of the processor).

    Raises:
        ValueError: If the lengths do not sum to the length of the row.
    """
    if input_ids.shape != (1, sum(sequence_lengths)):
        raise ValueError(
            f"packed sequences of {sum(sequence_lengths)} tokens must be one row, got {list(input_ids.shape)}"
        )
    for layer in body.language_model.layers:
        if not getattr(layer.self_attn, "reads_packs", False):
            layer.self_attn.reads_packs = True
            layer.self_attn.register_forward_pre_hook(_begin_packed, with_kwargs=True)
            layer.self_attn.register_forward_hook(_end_packed, always_call=True)
    return {
        "position_ids": body.packed_position_ids(input_ids, sequence_lengths, **layout),
        "sequence_lengths": tuple(sequence_lengths),
        # with four dimensions, transformers treats it as a final mask and builds none of its own; it is never read
        "attention_mask": input_ids.new_zeros(1, 1, 1, 1),
    }


def _begin_packed(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """Set the attention to `PACKED` for one call, also when activations are recomputed in the backward pass."""
    module.attention_before = None
    if kwargs.get("sequence_lengths") is not None:
        module.attention_before = module.config._attn_implementation
        module.config._attn_implementation = PACKED


def _end_packed(module: Any, args: Any, output: Any) -> None:
    if module.attention_before is not None:
        module.config._attn_implementation = module.attention_before


def in_rows(input_ids: Tensor, sequence_lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return packed sequences as padded rows, `[sequences, longest]`, and the mask of real tokens."""
    rows = pad_sequence(list(input_ids[0].split(list(sequence_lengths))), batch_first=True)
    lengths = torch.tensor(sequence_lengths, device=input_ids.device)
    return rows, torch.arange(rows.shape[1], device=input_ids.device) < lengths[:, None]


__all__ = ["PACKED", "in_rows", "packed_attention_forward", "packed_inputs"]
