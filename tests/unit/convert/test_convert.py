"""Conversion against recorded outputs of the original code, and of models written back into the original layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from convert_case import REFERENCE, assert_same_files, load
from safetensors.torch import load_file, save_file
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

import fcot_vl
from fcot_vl.common.errors import CheckpointError
from fcot_vl.common.stage import read_stage
from fcot_vl.stages.convert import convert

IMAGE_TOKEN = 300


def test_features_and_logits_are_the_original_codes(converted: Path) -> None:
    golden = np.load(REFERENCE / "golden.npz")
    pixels, ids = torch.from_numpy(golden["pixel_values"]), torch.from_numpy(golden["input_ids"])
    model = load(converted)
    with torch.no_grad():
        features = model.get_image_features(pixel_values=pixels).pooler_output
        logits = model(input_ids=ids, pixel_values=pixels).logits
    assert np.abs(np.stack(list(features)) - golden["image_features"]).max() < 1e-5
    assert np.abs(logits.numpy() - golden["logits"]).max() < 1e-5


def test_a_student_of_ratio_1_gives_the_same_logits(converted: Path) -> None:
    golden = np.load(REFERENCE / "golden.npz")
    pixels, ids = torch.from_numpy(golden["pixel_values"]), torch.from_numpy(golden["input_ids"])
    teacher = InternVLForConditionalGeneration.from_pretrained(converted, dtype=torch.float32).eval()
    student = fcot_vl.FCoTVLForConditionalGeneration.from_teacher(
        converted, compress_ratio=1, dtype=torch.float32
    ).eval()
    with torch.no_grad():
        assert torch.equal(
            student(input_ids=ids, pixel_values=pixels).logits,
            teacher(input_ids=ids, pixel_values=pixels).logits,
        )


def test_converted_loaded_saved_and_loaded_is_bit_equal(converted: Path, tmp_path: Path) -> None:
    model = load(converted)
    model.save_pretrained(tmp_path)
    assert_same_files(tmp_path / "model.safetensors", converted / "model.safetensors")


def test_the_configuration_says_what_the_original_did(converted: Path) -> None:
    config = load(converted).config
    assert config.image_token_id == IMAGE_TOKEN and config.image_seq_length == 16
    assert config.text_config.rope_parameters["rope_type"] == "dynamic"
    assert config.text_config.num_key_value_heads == 2
    assert not config.tie_word_embeddings


TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
SU = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]}
DECODERS: dict[str, Callable[[], object]] = {
    "internlm2": lambda: LlamaConfig(**TEXT, attention_bias=True, rope_parameters={"rope_theta": 1e6}),
    "qwen2": lambda: Qwen2Config(**TEXT, rope_parameters={"rope_theta": 1e6}),
    "qwen3": lambda: Qwen3Config(**TEXT, head_dim=16, rope_parameters={"rope_theta": 1e6}),
    "llama": lambda: LlamaConfig(**TEXT, rope_parameters={"rope_theta": 5e5}),
    "phi3": lambda: Phi3Config(
        **TEXT, original_max_position_embeddings=64, rope_parameters={"rope_theta": 1e4, **SU}
    ),
}
CLASSES = {
    "internlm2": "InternLM2ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "phi3": "Phi3ForCausalLM",
}
SMALL_VIT = {"attention_bias": True, "use_qk_norm": False, "norm_type": "layer_norm"}
BIG_VIT = {"attention_bias": False, "use_qk_norm": True, "norm_type": "rms_norm"}
BACK = (  # target -> original, in order
    ("vision_tower.encoder.layer.", "vision_model.encoder.layers."),
    ("vision_tower.embeddings.cls_token", "vision_model.embeddings.class_embedding"),
    ("vision_tower.embeddings.patch_embeddings.projection", "vision_model.embeddings.patch_embedding"),
    ("vision_tower.embeddings.position_embeddings", "vision_model.embeddings.position_embedding"),
    (".attention.projection_layer.", ".attn.proj."),
    (".attention.q_norm.", ".attn.q_norm."),
    (".attention.k_norm.", ".attn.k_norm."),
    (".lambda_", ".ls"),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    ("multi_modal_projector.layer_norm.", "mlp1.0."),
    ("multi_modal_projector.linear_1.", "mlp1.1."),
    ("multi_modal_projector.linear_2.", "mlp1.3."),
)
BACK_INTERNLM2 = (
    (".embed_tokens.", ".tok_embeddings."),
    ("language_model.lm_head.", "language_model.output."),
    (".self_attn.o_proj.", ".attention.wo."),
    (".input_layernorm.", ".attention_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
    (".mlp.gate_proj.", ".feed_forward.w1."),
    (".mlp.down_proj.", ".feed_forward.w2."),
    (".mlp.up_proj.", ".feed_forward.w3."),
)


def build(decoder: str, vit: dict, tied: bool = False, tile: int = 56) -> InternVLForConditionalGeneration:
    torch.manual_seed(0)
    vision = InternVLVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=tile,
        patch_size=14,
        initializer_range=0.2,
        layer_scale_init_value=0.5,
        **vit,
    )
    text = DECODERS[decoder]()
    text.tie_word_embeddings = tied
    config = InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=90,
        image_seq_length=(tile // 28) ** 2,
        tie_word_embeddings=tied,
    )
    config._attn_implementation = "eager"
    model = InternVLForConditionalGeneration(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


def as_original(model: InternVLForConditionalGeneration, decoder: str, folder: Path) -> Path:
    """Write a model as the original code would have saved it."""
    model.save_pretrained(folder / "hf")
    tensors = load_file(folder / "hf" / "model.safetensors")
    source: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if ".attention.q_proj." in name and name.startswith("vision"):
            parts = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            source[renamed(name.replace(".attention.q_proj.", ".attn.qkv."), BACK)] = torch.cat(parts)
        elif ".attention.k_proj." in name or ".attention.v_proj." in name:
            continue
        elif decoder == "internlm2" and name.startswith("language_model."):
            if ".self_attn.q_proj." in name:
                q, k, v = (
                    tensors[name.replace("q_proj", f"{part}_proj")].unflatten(0, (2, -1, 8)) for part in "qkv"
                )
                fused = torch.cat([q, k, v], dim=1).flatten(0, 2)
                source[name.replace(".self_attn.q_proj.", ".attention.wqkv.")] = fused
            elif ".self_attn.k_proj." not in name and ".self_attn.v_proj." not in name:
                source[renamed(name, BACK_INTERNLM2)] = tensor
        else:
            source[renamed(name, BACK)] = tensor
    shutil.rmtree(folder / "hf")
    save_file(source, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(original_config(model.config, decoder)))
    (folder / "added_tokens.json").write_text('{"<img>": 88, "</img>": 89, "<IMG_CONTEXT>": 90}')
    return folder


def renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for target, original in table:
        name = name.replace(target, original)
    return name


def original_config(config: InternVLConfig, decoder: str) -> dict:
    vision, text = config.vision_config, config.text_config
    rope = dict(text.rope_parameters)
    kind = {"default": None, "longrope": "su"}[rope.pop("rope_type")]
    scaling = None if kind is None else {"type": kind} | {k: v for k, v in rope.items() if "factor" in k}
    if scaling is not None:
        scaling.pop("partial_rotary_factor", None)
    llm = {key: getattr(text, key) for key in (*TEXT, "rms_norm_eps", "tie_word_embeddings", "hidden_act")}
    llm |= {"model_type": decoder, "architectures": [CLASSES[decoder]], "auto_map": {"AutoConfig": "x.Y"}}
    llm |= {"rope_theta": rope["rope_theta"], "rope_scaling": scaling, "torch_dtype": "bfloat16"}
    for key in ("head_dim", "original_max_position_embeddings"):
        if hasattr(text, key) and decoder != "internlm2":
            llm[key] = getattr(text, key)
    if decoder == "internlm2":
        llm["bias"] = text.attention_bias
    return {
        "model_type": "internvl_chat",
        "llm_config": llm,
        "vision_config": {
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "image_size": vision.image_size[0],
            "patch_size": vision.patch_size[0],
            "qkv_bias": vision.attention_bias,
            "qk_normalization": vision.use_qk_norm,
            "norm_type": vision.norm_type,
            "layer_norm_eps": vision.layer_norm_eps,
        },
        "force_image_size": vision.image_size[0],
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "phi3-chat" if decoder == "phi3" else "internvl2_5",
        "max_dynamic_patch": 4,
        "min_dynamic_patch": 1,
        "torch_dtype": "float32",
    }


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("vit", [SMALL_VIT, BIG_VIT], ids=["300M", "6B"])
def test_every_language_model_and_vit(decoder: str, vit: dict, tmp_path: Path) -> None:
    model = build(decoder, vit)
    back = load(convert(as_original(model, decoder, tmp_path), tmp_path / "out"))
    ids = torch.randint(0, 80, (1, 24), generator=torch.Generator().manual_seed(1))
    ids[0, 4:12] = 90
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        want = model(input_ids=ids, pixel_values=pixels).logits
        got = back(input_ids=ids, pixel_values=pixels).logits
    assert torch.equal(want, got)
    assert got.std() > 0.1


def test_a_tied_head_is_named_and_left_out(tmp_path: Path) -> None:
    model = build("qwen2", SMALL_VIT, tied=True)
    source = as_original(model, "qwen2", tmp_path)
    tensors = load_file(source / "model.safetensors")
    tensors["language_model.lm_head.weight"] = tensors["language_model.model.embed_tokens.weight"].clone()
    save_file(tensors, source / "model.safetensors")
    out = convert(source, tmp_path / "out")
    assert "tied" in read_stage(out)["figures"]["unused"]["language_model.lm_head.weight"]
    assert torch.equal(load(out).lm_head.weight, model.lm_head.weight)
    tensors["language_model.lm_head.weight"][0, 0] += 1
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(CheckpointError, match="the two differ"):
        convert(source, tmp_path / "other")


def test_rotary_frequencies_are_named_and_left_out(tmp_path: Path) -> None:
    source = as_original(build("llama", SMALL_VIT), "llama", tmp_path)
    tensors = load_file(source / "model.safetensors")
    name = "language_model.model.layers.0.self_attn.rotary_emb.inv_freq"
    tensors[name] = torch.ones(4)
    save_file(tensors, source / "model.safetensors")
    assert read_stage(convert(source, tmp_path / "out"))["figures"]["unused"].keys() == {name}


def test_positions_of_another_tile_size_are_resized(tmp_path: Path) -> None:
    model = build("qwen2", SMALL_VIT)
    source = as_original(model, "qwen2", tmp_path)
    config = json.loads((source / "config.json").read_text())
    config["force_image_size"] = 84
    (source / "config.json").write_text(json.dumps(config))
    back = load(convert(source, tmp_path / "out"))
    assert back.config.image_seq_length == 9
    pixels = torch.randn(1, 3, 84, 84, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():  # transformers resizes the small table itself when it meets larger tiles
        want = model.model.vision_tower(pixel_values=pixels).last_hidden_state
        got = back.model.vision_tower(pixel_values=pixels).last_hidden_state
    assert torch.allclose(want, got, atol=1e-5)
