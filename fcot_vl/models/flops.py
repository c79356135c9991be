"""Inference cost of a model, computed from its configuration: operations and bytes of the KV cache.

Source: paper eq. 6-7 (section 3.3). A multiplication with its addition counts as two operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def layer_flops(n: int, d: int, m: int, ffn_matrices: int = 2, kv_share: float = 1.0) -> float:
    """Compute the floating-point operations of one transformer layer on a sequence of `n` tokens.

    A multiplication with its addition counts as two operations.

    Args:
        n: Number of tokens.
        d: Width of the layer.
        m: Inner width of the feed-forward part.
        ffn_matrices: Number of matrices of the feed-forward part (3 if it is gated).
        kv_share: Number of key-value heads / number of heads.

    Source: paper eq. 6, which counts the multiply-adds of a layer with full heads and two feed-forward matrices, 4nd² +
    2n²d + 2ndm. As there, the causal half of the attention map is not subtracted.
    """
    multiply_adds = (2 + 2 * kv_share) * n * d * d + 2 * n * n * d + ffn_matrices * n * d * m
    return 2 * multiply_adds


def prefill_flops(text: Any, tokens_per_layer: Sequence[int]) -> float:
    """Compute the operations of a decoder's prefill with `tokens_per_layer` tokens in its layers (paper eq. 6-7).

    Args:
        text: Configuration of the decoder (Qwen2 or Llama: gated feed-forward part, grouped key-value heads).
        tokens_per_layer: Number of tokens in each layer.
    """
    kv_share = text.num_key_value_heads / text.num_attention_heads
    return sum(
        layer_flops(n, text.hidden_size, text.intermediate_size, 3, kv_share) for n in tokens_per_layer
    )


def vit_flops(vision: Any, n_tiles: int) -> float:
    """Compute the operations of the ViT on `n_tiles` tiles: patch embedding and layers.

    The layers process one class token in addition to the patches, except in SigLIP.

    Raises:
        ValueError: If the ViT takes images of any size (Qwen-VL).
    """
    side, patch = patches_in_row(vision)
    embedding = 2 * side**2 * vision.num_channels * patch**2 * vision.hidden_size
    tokens = side**2 + (vision.model_type != "siglip_vision_model")
    layers = vision.num_hidden_layers * layer_flops(tokens, vision.hidden_size, vision.intermediate_size)
    return n_tiles * (embedding + layers)


def patches_in_row(vision: Any) -> tuple[int, int]:
    """Return (number of patches in a row of a square tile, side of a patch in pixels).

    Raises:
        ValueError: If the model has no tiles.
    """
    if not hasattr(vision, "image_size"):
        raise ValueError(
            f"operations are counted for ViTs with tiles of one size; {vision.model_type} takes any size"
        )
    size, patch = (
        value if isinstance(value, int) else value[0] for value in (vision.image_size, vision.patch_size)
    )
    return size // patch, patch


def projector_flops(model: Any, n_tiles: int) -> float:
    """Compute the operations of compressor and projector on `n_tiles` tiles, as counted by torch on one tile.

    Raises:
        ValueError: If the ViT of the model takes images of any size (Qwen-VL).
    """
    return n_tiles * _flops_of_a_tile(model, model.model.multi_modal_projector)


def compressor_flops(student: Any, n_tiles: int) -> float:
    """Compute the operations of an InternVL student's compressor: matrix products and convolutions, counted by torch.

    Means, norms and activations are not counted, so pooling has 0 operations.
    """
    return n_tiles * _flops_of_a_tile(student, student.model.multi_modal_projector.compressor)


def _flops_of_a_tile(model: Any, module: torch.nn.Module) -> float:
    side, _ = patches_in_row(model.config.vision_config)
    tokens = round((side * getattr(model.config, "downsample_ratio", 1)) ** 2)
    channels = model.model.multi_modal_projector.linear_1.in_features
    counter = FlopCounterMode(display=False)
    # The counter fails on views of weights made without gradients, and does not support the CPU attention kernel.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(torch.zeros(1, tokens, channels, dtype=model.dtype, device=model.device))
    return float(counter.get_total_flops())


def cache_bytes(text: Any, tokens_per_layer: Sequence[int], itemsize: int) -> int:
    """Compute the bytes of the keys and values of a decoder whose layers cache `tokens_per_layer` tokens."""
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_key_value_heads * head_dim * itemsize * sum(tokens_per_layer)


def decode_weight_bytes(model: Any) -> int:
    """Compute the bytes of the weights that one decoding step reads, for any batch size: layers, final norm and head.

    A step reads only one row of the embedding, which is not counted. The head counts even if it is tied to the
    embedding.
    """
    decoder = model.model.language_model
    parts = [
        parameter for name, parameter in decoder.named_parameters() if not name.startswith("embed_tokens")
    ]
    return sum(part.nbytes for part in [*parts, *model.get_output_embeddings().parameters()])
