"""Operation counts of a training step, from which the model FLOPs utilisation (MFU) of the device is computed.

Operations are counted from the configuration and the step's sequences. Causal attention counts half. Recomputation by
activation checkpointing is not counted. Models that accept images of any size are not supported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fcot_vl.models.flops import layer_flops, vit_flops

# Operations per second of dense bfloat16 matrix products, from the manufacturers' data sheets.
PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "V100": 125e12,
}


def peak_flops() -> float | None:
    """Return the peak operations per second of this process's device, or None if unknown."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def decoder_flops(text: Any, lengths: Sequence[int]) -> float:
    """Count the operations of one decoder forward pass over sequences that do not attend to each other."""
    kv_share = text.num_key_value_heads / text.num_attention_heads
    total = 0.0
    for n in lengths:
        layer = layer_flops(n, text.hidden_size, text.intermediate_size, 3, kv_share)
        total += text.num_hidden_layers * (layer - 2 * n * n * text.hidden_size)
    return total


def head_flops(text: Any, answers: int) -> float:
    """Count the operations of one pass of the language-model head over answer tokens."""
    return 2.0 * answers * text.hidden_size * text.vocab_size


def vision_flops(config: Any, inputs: Mapping[str, Any]) -> float | None:
    """Count the operations of one ViT forward pass over a batch.

    Returns 0 for cached features, and None for a ViT that accepts images of any size.
    """
    if "pixel_values" not in inputs:
        return 0.0
    try:
        return vit_flops(config.vision_config, inputs["pixel_values"].shape[:-3].numel())
    except ValueError:
        return None


__all__ = ["decoder_flops", "head_flops", "peak_flops", "vision_flops"]
