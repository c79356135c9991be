"""Tiny random InternVL teachers in the Hugging Face layout, and coarse random pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    GenerationConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)

import fcot_vl
from fcot_vl.models.tiny import tiny_teacher_path

TILE = 112
IMAGE_TOKEN_ID = 6
PAD_TOKEN_ID, EOS_TOKEN_ID = 0, 3


def teacher_config(decoder: str = "qwen2", tile: int = TILE, **overrides: object) -> InternVLConfig:
    """112-pixel tiles, patch 14: 64 patches, 16 visual tokens of 128 channels; decoder width 64, four layers."""
    vision = InternVLVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=tile,
        patch_size=14,
        layer_scale_init_value=1.0,
        initializer_range=0.15,
    )
    sizes: dict = {
        "vocab_size": 106,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.15,
        "tie_word_embeddings": False,
        "pad_token_id": PAD_TOKEN_ID,
        "bos_token_id": None,
        "eos_token_id": EOS_TOKEN_ID,
    }
    text: PretrainedConfig = {"qwen2": Qwen2Config, "llama": LlamaConfig}[decoder](**sizes)
    settings: dict = {"tie_word_embeddings": False, **overrides}
    return InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE_TOKEN_ID,
        image_seq_length=(tile // 28) ** 2,
        **settings,
    )


def build_teacher(folder: Path, config: InternVLConfig, seed: int = 0) -> Path:
    """Save a random teacher, and the tokenizer, chat template and preprocessor settings of the embedded one."""
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(config)
    projector = model.model.multi_modal_projector
    with (
        torch.no_grad()
    ):  # the defaults (deviation 0.02, no positions) would leave the picture next to no influence
        projector.linear_1.weight.normal_(std=0.15)
        projector.linear_2.weight.normal_(std=0.15)
        model.model.vision_tower.embeddings.position_embeddings.normal_(std=0.5)
        model.model.vision_tower.embeddings.cls_token.normal_(std=0.5)
        model.lm_head.weight.normal_(std=0.15)
    model.generation_config = GenerationConfig(
        pad_token_id=PAD_TOKEN_ID, eos_token_id=EOS_TOKEN_ID, suppress_tokens=[IMAGE_TOKEN_ID]
    )
    model.save_pretrained(folder)
    source = tiny_teacher_path()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, folder / name)
    processor = fcot_vl.FCoTVLProcessor.from_pretrained(source, image_seq_length=config.image_seq_length)
    size = config.vision_config.image_size
    processor.image_processor.size = {"height": size[0], "width": size[1]}
    processor.save_pretrained(folder)
    return folder


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A coarse random RGB picture; every 14-pixel patch differs from its neighbors."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (-(-height // 14), -(-width // 14), 3), dtype=np.uint8
    )
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)
