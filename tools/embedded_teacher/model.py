"""The embedded teacher with fresh weights: InternVL's architecture at about 10 M parameters.

The proportions follow InternVL2-2B where it matters for speed: 28 x 28 pixels per visual token, and a decoder that does
at least half of the operations to the first token on pages of several tiles.
"""

from __future__ import annotations

import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

TILE = 224
WIDTH = 144  # of the ViT


def vision_config() -> InternVLVisionConfig:
    """Configuration of the ViT: 224-pixel tiles, 14-pixel patches, 1.6 M parameters."""
    return InternVLVisionConfig(
        hidden_size=WIDTH,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=4 * WIDTH,
        attention_bias=True,
        image_size=TILE,
        patch_size=14,
        initializer_range=0.07,
        layer_scale_init_value=1.0,
        norm_type="layer_norm",
    )


def build(tokenizer: PreTrainedTokenizerFast) -> InternVLForConditionalGeneration:
    """The whole teacher with fresh weights, drawn from torch's global generator."""
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=320,
        intermediate_size=832,
        num_hidden_layers=6,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        initializer_range=0.07,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = InternVLConfig(
        vision_config=vision_config(),
        text_config=text,
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=(TILE // 28) ** 2,
        tie_word_embeddings=False,
    )
    config._attn_implementation = "sdpa"
    model = InternVLForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
            elif "lambda" in name:
                parameter.fill_(1.0)
        embeddings = model.model.vision_tower.embeddings
        embeddings.position_embeddings.normal_(0, 0.07)
        embeddings.cls_token.normal_(0, 0.07)
        embeddings.patch_embeddings.projection.weight.normal_(0, 0.05)
    return model
