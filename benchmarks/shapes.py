"""Random models in the shapes of InternVL2, and pages for them: the timings do not depend on the weights.

The tokenizer is the embedded teacher's, about one token per character; its vocabulary is a part of the model's.
Source of the shapes: the published `config.json` of InternVL2-2B (InternLM2-1.8B) and InternVL2-8B (InternLM2.5-7B),
both with InternViT-300M-448px.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, LlamaConfig

from fcot_vl.data.dataset import Sample
from fcot_vl.models import FCoTVLConfig, FCoTVLForConditionalGeneration, FCoTVLProcessor
from fcot_vl.models.internvl.modeling import StudentAdaptor
from fcot_vl.models.tiny import tiny_teacher_path

TILE, MOST_TILES = 448, 12  # the paper's tile threshold (its Table 6)
QUESTION = "What is the total amount that is due on this page, in words or in numbers as it is printed?"


@dataclass(frozen=True)
class Shape:
    """Shape of the decoder and ViT of an InternVL."""

    width: int
    feed_forward: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    vision_width: int
    vision_layers: int


SHAPES = {
    "2B": Shape(2048, 8192, 24, 16, 8, 92_553, 1024, 24),
    "8B": Shape(4096, 14_336, 32, 32, 8, 92_553, 1024, 24),
    "prefill": Shape(
        1024, 4096, 12, 16, 8, 4_096, 128, 2
    ),  # a CPU's: decoder of some width behind next to no ViT
    "small": Shape(256, 1024, 4, 4, 2, 4_096, 128, 2),  # to try the code
}


def processor_for(model: Any) -> FCoTVLProcessor:
    """Return the embedded teacher's processor with tiles of 448 pixels and the model's visual tokens per tile."""
    processor = FCoTVLProcessor.from_pretrained(
        tiny_teacher_path(), image_seq_length=model.config.image_seq_length
    )
    processor.image_processor.size = {"height": TILE, "width": TILE}
    processor.image_processor.max_patches = MOST_TILES
    return processor


def random_teacher(shape: Shape, device: str | None = None) -> Any:
    """Create an InternVL of that shape: float32 on the CPU, else bfloat16, by default on a GPU if there is one.

    On the device "meta" it has no weights and can only be counted.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    vision = InternVLVisionConfig(
        hidden_size=shape.vision_width,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_width // 64,
        intermediate_size=4 * shape.vision_width,
        image_size=TILE,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=32_768,
        tie_word_embeddings=False,
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=FCoTVLProcessor.from_pretrained(tiny_teacher_path()).image_token_id,
        image_seq_length=(TILE // 28) ** 2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = InternVLForConditionalGeneration._from_config(
            config, dtype=torch.float32 if device == "cpu" else torch.bfloat16
        )
    return model.eval()


def random_student(teacher: Any, ratio: int) -> Any:
    """Create a student of that teacher with a random compressor; ViT and decoder are the teacher's own, not copies."""
    config = FCoTVLConfig.from_teacher(teacher.config, ratio)
    with torch.device("meta"):
        student = FCoTVLForConditionalGeneration(config)
    student.model.vision_tower = teacher.model.vision_tower
    student.model.language_model = teacher.model.language_model
    student.lm_head = teacher.lm_head
    student.model.multi_modal_projector = StudentAdaptor(config).to(teacher.device, teacher.dtype)
    only_counted = teacher.device.type == "meta"
    assert only_counted or not any(t.is_meta for t in [*student.parameters(), *student.buffers()])
    return student.eval()


def random_page(width: int, height: int, number: int = 0) -> Sample:
    """Create a page of noise with a question."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "-"}]
    name = f"{width}x{height}-{number}"
    return Sample(name, [Image.fromarray(pixels)], messages, "forms", "test", ["-"], "anls", 1.0, number)
