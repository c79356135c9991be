"""What a model costs to run, counted from its configuration: operations and cache bytes.

Source: paper eq. 6-7 (section 3.3). A multiplication with its addition counts as two operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def layer_flops(n: int, d: int, m: int, ffn_matrices: int = 2, kv_share: float = 1.0) -> float:
    """Floating-point operations of one transformer layer on a sequence of `n` tokens.

    A multiplication with its addition counts as two operations. n: tokens. d: width. m: inner width of the
    feed-forward part. ffn_matrices: its matrices (3 for a gated one). kv_share: key-value heads / heads.

    Source: paper eq. 6, which counts multiply-adds of a layer with full heads and two feed-forward matrices,
    4nd² + 2n²d + 2ndm. As there, the causal half of the attention map is not taken off.
    """
    multiply_adds = (2 + 2 * kv_share) * n * d * d + 2 * n * n * d + ffn_matrices * n * d * m
    return 2 * multiply_adds


def prefill_flops(text: Any, tokens_per_layer: Sequence[int]) -> float:
    """Operations of a decoder's prefill whose layers see `tokens_per_layer` tokens (paper eq. 6-7).

    text: the decoder's configuration (Qwen2 or Llama: gated feed-forward part, grouped key-value heads).
    """
    kv_share = text.num_key_value_heads / text.num_attention_heads
    return sum(
        layer_flops(n, text.hidden_size, text.intermediate_size, 3, kv_share) for n in tokens_per_layer
    )


def vit_flops(vision: Any, n_tiles: int) -> float:
    """Operations of the ViT on `n_tiles` tiles: patch embedding and layers (one class token more than patches).

    Raises ValueError for a ViT that takes pictures of any size (Qwen-VL).
    """
    side, patch = patches_in_row(vision)
    embedding = 2 * side**2 * vision.num_channels * patch**2 * vision.hidden_size
    tokens = side**2 + (vision.model_type != "siglip_vision_model")
    layers = vision.num_hidden_layers * layer_flops(tokens, vision.hidden_size, vision.intermediate_size)
    return n_tiles * (embedding + layers)


def patches_in_row(vision: Any) -> tuple[int, int]:
    """(patches in a row of a square tile, side of a patch in pixels). Raises ValueError where there are no tiles."""
    if not hasattr(vision, "image_size"):
        raise ValueError(
            f"operations are counted for ViTs with tiles of one size; {vision.model_type} takes any size"
        )
    size, patch = (
        value if isinstance(value, int) else value[0] for value in (vision.image_size, vision.patch_size)
    )
    return size // patch, patch


def projector_flops(model: Any, n_tiles: int) -> float:
    """Operations of compressor and projector on `n_tiles` tiles, counted by torch on one tile.

    Raises ValueError for a model whose ViT takes pictures of any size (Qwen-VL).
    """
    return n_tiles * _flops_of_a_tile(model, model.model.multi_modal_projector)


def compressor_flops(student: Any, n_tiles: int) -> float:
    """Operations of an InternVL student's compressor alone: matrix products and convolutions, as torch counts them.

    Means, norms and activations are not counted, so that pooling is 0.
    """
    return n_tiles * _flops_of_a_tile(student, student.model.multi_modal_projector.compressor)


def _flops_of_a_tile(model: Any, module: torch.nn.Module) -> float:
    side, _ = patches_in_row(model.config.vision_config)
    tokens = round((side * getattr(model.config, "downsample_ratio", 1)) ** 2)
    channels = model.model.multi_modal_projector.linear_1.in_features
    counter = FlopCounterMode(display=False)
    # The counter fails on a weight's view made without gradients, and does not know the CPU's attention kernel.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(torch.zeros(1, tokens, channels, dtype=model.dtype, device=model.device))
    return float(counter.get_total_flops())


def cache_bytes(text: Any, tokens_per_layer: Sequence[int], itemsize: int) -> int:
    """Bytes of the keys and values a decoder holds when its layers cache `tokens_per_layer` tokens."""
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_key_value_heads * head_dim * itemsize * sum(tokens_per_layer)


def decode_weight_bytes(model: Any) -> int:
    """Bytes of the weights that one decoding step reads, whatever the batch: the decoder's layers, its norm, the head.

    Of the embedding a step reads a row; the head counts even where it is the embedding (tied).
    """
    decoder = model.model.language_model
    parts = [
        parameter for name, parameter in decoder.named_parameters() if not name.startswith("embed_tokens")
    ]
    return sum(part.nbytes for part in [*parts, *model.get_output_embeddings().parameters()])
