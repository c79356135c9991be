"""Tiny random teachers that are no InternVL, in the Hugging Face layout with transformers' own processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from teacher_case import picture
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from fcot_vl.models.tiny import tiny_teacher_path

SIZES = [(90, 200), (230, 100), (150, 150), (33, 300), (500, 470)]  # height, width of pictures
TEMPLATE = (  # llava-hf/llava-1.5-7b-hf's
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
QWEN_TEMPLATE = (  # as Qwen2-VL's, without videos
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 3,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 14,
}


def picture_of(height: int, width: int) -> Image.Image:
    return picture(width, height, seed=height + width)


def tokenizer() -> Any:
    """The embedded teacher's, with an image token of LLaVA's name."""
    found = AutoTokenizer.from_pretrained(tiny_teacher_path())
    found.add_special_tokens({"additional_special_tokens": ["<image>"]})
    found.chat_template = None
    return found


def llava(folder: Path) -> Path:
    words = tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, image_size=112),
        text_config=LlamaConfig(**TEXT, vocab_size=len(words)),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        image_seq_length=64,
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 112}, crop_size={"height": 112, "width": 112})
    processor = LlavaProcessor(images, words, 14, "default", TEMPLATE, num_additional_image_tokens=1)
    return save(folder, LlavaForConditionalGeneration(config), processor)


def llava_next(folder: Path) -> Path:
    words = tokenizer()
    pinpoints = [[112, 224], [224, 112], [224, 224], [336, 112], [112, 336]]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**VISION, image_size=112),
        text_config=LlamaConfig(**TEXT, vocab_size=len(words)),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        image_seq_length=64,
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 112},
        crop_size={"height": 112, "width": 112},
        image_grid_pinpoints=pinpoints,
    )
    processor = LlavaNextProcessor(images, words, 14, "default", TEMPLATE, num_additional_image_tokens=1)
    return save(folder, LlavaNextForConditionalGeneration(config), processor)


def llava_onevision(folder: Path) -> Path:
    """Tiles of 9 x 9 tokens: odd, as SigLIP's 27 x 27; scaled down above four tiles."""
    words = tokenizer()
    pinpoints = [[126 * rows, 126 * columns] for rows in range(1, 5) for columns in range(1, 5)]
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, image_size=126),
        text_config=Qwen2Config(**TEXT, vocab_size=len(words)),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        video_token_id=len(words) - 2,
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio="anyres_max_4",
    )
    images = LlavaOnevisionImageProcessorPil(
        size={"height": 126, "width": 126}, image_grid_pinpoints=pinpoints
    )
    return save(folder, LlavaOnevisionForConditionalGeneration(config), OnevisionStandIn(images, words))


class StandIn:
    """transformers' processor without its video processor, which would need torchvision.

    template: chat template. placeholder: the image token.
    """

    template: str
    placeholder: str

    def __init__(self, images: Any, words: Any) -> None:
        self.images, self.words = images, words

    def save_pretrained(self, folder: Path) -> None:
        self.images.save_pretrained(folder)
        self.words.save_pretrained(folder)
        (folder / "chat_template.jinja").write_text(self.template)

    def count(self, picture: Image.Image, read: Any) -> int:
        """Visual tokens of a picture, as transformers counts them."""
        raise NotImplementedError

    def beside(self, input_ids: torch.Tensor, read: Any) -> dict[str, Any]:
        """What the model takes beside tokens and pixels."""
        raise NotImplementedError

    def apply_chat_template(self, messages: list[dict[str, Any]], **kwargs: Any) -> dict[str, Any]:
        picture = messages[0]["content"][0]["image"]
        read = self.images(picture, return_tensors="pt")
        text = self.words.apply_chat_template(
            messages, chat_template=self.template, add_generation_prompt=True, tokenize=False
        )
        run = self.placeholder * self.count(picture, read)
        inputs = self.words(text.replace(self.placeholder, run), return_tensors="pt")
        return {**inputs, "pixel_values": read["pixel_values"], **self.beside(inputs["input_ids"], read)}


class OnevisionStandIn(StandIn):
    template, placeholder = TEMPLATE, "<image>"

    def count(self, picture: Image.Image, read: Any) -> int:
        counter = object.__new__(LlavaOnevisionProcessor)
        counter.__dict__ |= {
            "image_processor": self.images,
            "num_image_tokens": 81,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_4",
        }
        side = self.images.size["height"]
        return int(counter._get_number_of_features(picture.height, picture.width, side, side))

    def beside(self, input_ids: torch.Tensor, read: Any) -> dict[str, Any]:
        return {"image_sizes": read["image_sizes"]}


class QwenStandIn(StandIn):
    template, placeholder = QWEN_TEMPLATE, "<|image_pad|>"

    def count(self, picture: Image.Image, read: Any) -> int:
        return int(read["image_grid_thw"].prod()) // self.images.merge_size**2

    def beside(self, input_ids: torch.Tensor, read: Any) -> dict[str, Any]:
        visual = input_ids == self.words.convert_tokens_to_ids(self.placeholder)
        return {"image_grid_thw": read["image_grid_thw"], "mm_token_type_ids": visual.int()}


def qwen(folder: Path, config: Any, model: Any, vision: dict[str, Any], patch: int) -> Path:
    words = tokenizer()
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    words.add_special_tokens({"additional_special_tokens": marks})
    start, end, image, video = words.convert_tokens_to_ids(marks)
    text = {
        **TEXT,
        "vocab_size": len(words),
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    }
    settings = config(
        text_config=text,
        vision_config={"patch_size": patch, "spatial_merge_size": 2, "temporal_patch_size": 2, **vision},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 56 * 56, "longest_edge": 224 * 224}, patch_size=patch
    )
    return save(folder, model(settings), QwenStandIn(images, words))


def qwen2_vl(folder: Path) -> Path:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}
    return qwen(folder, Qwen2VLConfig, Qwen2VLForConditionalGeneration, vision, 14)


def qwen2_5_vl(folder: Path) -> Path:
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
        "window_size": 56,
    }
    return qwen(folder, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, vision, 14)


def qwen3_vl(folder: Path) -> Path:
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 2],
    }
    return qwen(folder, Qwen3VLConfig, Qwen3VLForConditionalGeneration, vision, 16)


def save(folder: Path, model: Any, processor: Any) -> Path:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
            elif "newline" in name:
                parameter.normal_()
    model.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def hf_processor(folder: Path) -> Any:
    """transformers' own processor of a teacher that was built here."""
    kind = AutoConfig.from_pretrained(folder).model_type
    words = AutoTokenizer.from_pretrained(folder)
    if kind.startswith("qwen"):
        return QwenStandIn(Qwen2VLImageProcessorPil.from_pretrained(folder), words)
    if kind == "llava":
        return LlavaProcessor.from_pretrained(folder)
    if kind == "llava_next":
        return LlavaNextProcessor.from_pretrained(folder)
    images = LlavaOnevisionImageProcessorPil.from_pretrained(folder)
    return OnevisionStandIn(images, words)


LLAVA = {"llava": llava, "llava_next": llava_next, "llava_onevision": llava_onevision}
QWEN = {"qwen2_vl": qwen2_vl, "qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl}
BUILDERS = LLAVA | QWEN
