"""Conversion against recorded outputs of the original code, and of models written back into the original layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
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
from transformers.utils.chat_template_utils import render_jinja_template

import fcot_vl
from fcot_vl.common.errors import CheckpointError
from fcot_vl.common.stage import read_stage
from fcot_vl.convert.chat_templates import CONVERSATIONS, chat_template
from fcot_vl.stages.convert import convert

DATA = Path(__file__).resolve().parents[2] / "data"
REFERENCE = DATA / "internvl2-tiny-internlm2"
PROMPTS = json.loads((DATA / "chat-prompts.json").read_text())
IMAGE_TOKEN = 300

# ------------------------------------------------------------------------------------------- the recorded checkpoint


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(REFERENCE, tmp_path_factory.mktemp("converted") / "out")


def load(folder: Path) -> InternVLForConditionalGeneration:
    model, info = InternVLForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32, attn_implementation="eager"
    )
    assert not any(info.values()), info
    return model.eval()


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


def assert_same_files(one: Path, other: Path) -> None:
    left, right = load_file(one), load_file(other)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]) and tensor.dtype == right[name].dtype, name


def test_the_configuration_says_what_the_original_did(converted: Path) -> None:
    config = load(converted).config
    assert config.image_token_id == IMAGE_TOKEN and config.image_seq_length == 16
    assert config.text_config.rope_parameters["rope_type"] == "dynamic"
    assert config.text_config.num_key_value_heads == 2
    assert not config.tie_word_embeddings


# --------------------------------------------------------------------------------- models back in the original layout

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


# --------------------------------------------------------------------------------------------------- shards and files


def in_shards(source: Path, count: int = 3) -> None:
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    listed = {}
    for number in range(count):
        file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        part = {name: tensor for i, (name, tensor) in enumerate(tensors.items()) if i % count == number}
        save_file(part, source / file)
        listed |= dict.fromkeys(part, file)
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the recorded checkpoint that a test may break."""
    folder = tmp_path / "source"
    shutil.copytree(REFERENCE, folder)
    return folder


@pytest.mark.faults
def test_shards_become_shards_and_a_cut_off_run_goes_on(
    source: Path, converted: Path, tmp_path: Path
) -> None:
    in_shards(source)
    out = convert(source, tmp_path / "out")
    want = load(converted).state_dict()
    for name, tensor in load(out).state_dict().items():
        assert torch.equal(tensor, want[name]), name
    record = json.loads((out / "stage.json").read_text())
    (out / "stage.json").write_text(json.dumps(record | {"status": "running"}))
    first, second = out / "model-00001-of-00003.safetensors", out / "model-00002-of-00003.safetensors"
    kept = first.stat().st_mtime_ns
    second.unlink()
    (out / "config.json").unlink()
    convert(source, out)
    assert first.stat().st_mtime_ns == kept and second.exists()
    load(out)


def test_bin_files_only_when_asked_for(source: Path, converted: Path, tmp_path: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save(tensors, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="--allow-bin"):
        convert(source, tmp_path / "out")
    out = convert(source, tmp_path / "out", allow_bin=True)
    assert_same_files(out / "model.safetensors", converted / "model.safetensors")


def test_dtypes_stay(source: Path, tmp_path: Path) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(tensors, source / "model.safetensors")
    out = convert(source, tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}


# ---------------------------------------------------------------------------------------------------------- bad input


def change(source: Path, **changes: object) -> None:
    config = json.loads((source / "config.json").read_text()) | changes
    (source / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def missing_shard(source: Path) -> None:
    in_shards(source)
    (source / "model-00002-of-00003.safetensors").unlink()


def outside(source: Path) -> None:
    in_shards(source)
    index = source / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00002-of", "../model-00002-of"))


def truncated(source: Path) -> None:
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def with_tensors(source: Path, edit: Callable[[dict], object]) -> None:
    tensors = load_file(source / "model.safetensors")
    edit(tensors)
    save_file(tensors, source / "model.safetensors")


WQKV = "language_model.model.layers.1.attention.wqkv.weight"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (missing_shard, r"model-00002-of-00003.safetensors: missing"),
        (outside, r"no weight file of this folder"),
        (truncated, r"model.safetensors: not a complete safetensors file"),
        (lambda s: with_tensors(s, lambda t: t.pop("mlp1.1.bias")), r"no tensor for: model.multi_modal"),
        (lambda s: with_tensors(s, lambda t: t.update(extra=torch.ones(1))), r"does not have: extra"),
        (
            lambda s: with_tensors(s, lambda t: t.update({WQKV: torch.ones(90, 64)})),
            r"wqkv.weight \[90, 64\]",
        ),
        (lambda s: with_tensors(s, lambda t: t.update({"mlp1.1.bias": torch.ones(3)})), r"mlp1.1.bias \[3\]"),
        (lambda s: change(s, llm_config=None), "has no llm_config"),
        (
            lambda s: change(s, llm_config={"architectures": ["MambaForCausalLM"]}),
            "'MambaForCausalLM' is not supported",
        ),
        (lambda s: change(s, vision_config=None), "no vision_config"),
        (lambda s: change(s, ps_version="v1"), "ps_version 'v1'"),
        (lambda s: (s / "config.json").unlink(), "config.json: missing"),
        (lambda s: (s / "config.json").write_text("{"), "not readable as JSON"),
        (lambda s: (s / "added_tokens.json").unlink(), "--image-token-id"),
        (lambda s: (s / "model.safetensors").unlink(), "no model.safetensors"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    source: Path, tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(source)
    with pytest.raises(CheckpointError, match=words) as caught:
        convert(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_unknown_conversation_is_said_and_left_out(
    source: Path, tmp_path: Path, log: Callable[[], str]
) -> None:
    change(source, template="vicuna")
    out = convert(source, tmp_path / "out")
    assert "'vicuna' is not supported" in log()
    assert not (out / "chat_template.jinja").exists()
    load(out)


# -------------------------------------------------------------------------------------------------------------- prompts

TURNS = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is the total?"}]},
    {"role": "assistant", "content": "42"},
    {"role": "user", "content": "And the date?"},
]


def render(template: str, messages: list[dict], generation: bool = True) -> tuple[str, list]:
    rendered, spans = render_jinja_template(
        [messages],
        chat_template=chat_template(CONVERSATIONS[template], bos=False),
        add_generation_prompt=generation,
        return_assistant_tokens_mask=True,
        bos_token="<s>",
    )
    return rendered[0], spans[0]


@pytest.mark.parametrize("template", PROMPTS)
def test_prompts_are_the_originals(template: str) -> None:
    assert render(template, TURNS)[0].replace("<IMG_CONTEXT>", "<image>") == PROMPTS[template]


@pytest.mark.parametrize("template", CONVERSATIONS)
def test_the_mask_covers_an_answer_and_its_end(template: str) -> None:
    text, spans = render(template, [*TURNS, {"role": "assistant", "content": "Monday"}], generation=False)
    stop = CONVERSATIONS[template].stop
    assert [text[start:end] for start, end in spans] == [f"42{stop}", f"Monday{stop}"]


def test_a_system_message_replaces_the_familys() -> None:
    text, _ = render("internvl2_5", [{"role": "system", "content": "Be brief."}, *TURNS])
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert text.count("system") == 1


def test_the_first_token_is_written_where_the_tokenizer_puts_one() -> None:
    template = chat_template(CONVERSATIONS["internlm2-chat"], bos=True)
    rendered, _ = render_jinja_template([TURNS], chat_template=template, bos_token="<s>")
    assert rendered[0].startswith("<s><|im_start|>system\n")
