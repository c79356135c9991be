"""Conversion of the original `config.json` to an `InternVLConfig`, and of its tiling to an image processor.

The original file nests its own kind of vision configuration and the configuration of the language model (`llm_config`).
The target nests the configurations of transformers' InternVL vision model and of its language model. InternLM2 has no
class in transformers; with its fused weights split it is a Llama.
"""

from __future__ import annotations

from typing import Any

from transformers import (
    InternVLConfig,
    InternVLVisionConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from fcot_vl.common.errors import CheckpointError, one_line

LANGUAGE_MODELS: dict[str, Any] = {  # `llm_config.model_type` -> configuration class
    "internlm2": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "llama": LlamaConfig,
    "phi3": Phi3Config,
}
ARCHITECTURES = {
    "InternLM2ForCausalLM": "internlm2",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "LlamaForCausalLM": "llama",
    "Phi3ForCausalLM": "phi3",
}
VISION_NORM_EPS = 1e-6  # epsilon of the query and key norms in transformers' ViT, which is not configurable


def language_model_of(config: dict[str, Any]) -> str:
    """Return the key of `LANGUAGE_MODELS` for the checkpoint's language model.

    Raises:
        CheckpointError: If the language model is not one of `LANGUAGE_MODELS`.
    """
    nested = config.get("llm_config")
    if not isinstance(nested, dict):
        kind = config.get("model_type")
        raise CheckpointError(
            f"config.json has no llm_config (model_type {kind!r}): not an InternVL checkpoint in the original layout"
        )
    architecture = (nested.get("architectures") or [None])[0]
    kind = ARCHITECTURES.get(architecture, nested.get("model_type"))
    if kind not in LANGUAGE_MODELS:
        raise CheckpointError(
            f"config.json: the language model {architecture or kind!r} is not supported; "
            f"supported are {', '.join(ARCHITECTURES)}"
        )
    return str(kind)


def internvl_config(config: dict[str, Any], image_token_id: int) -> InternVLConfig:
    """Build the target configuration.

    Args:
        config: Content of the original `config.json`.
        image_token_id: Id of `<IMG_CONTEXT>` in the tokenizer.

    Raises:
        CheckpointError: If a part is missing, or the checkpoint needs something that transformers' InternVL lacks.
    """
    kind = language_model_of(config)
    if config.get("ps_version", "v2") != "v2":
        raise CheckpointError(
            f"config.json: ps_version {config['ps_version']!r} shuffles pixels in an order that transformers' "
            "InternVL does not have; only v2 can be converted"
        )
    if not isinstance(config.get("vision_config"), dict):
        raise CheckpointError("config.json has no vision_config")
    vision = _vision(config)
    text = _text(config["llm_config"], kind)
    side = vision.image_size[0] // vision.patch_size[0]
    ratio = float(config.get("downsample_ratio", 0.5))
    return InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image_token_id,
        image_seq_length=round(side * side * ratio**2),
        downsample_ratio=ratio,
        vision_feature_layer=int(config.get("select_layer", -1)),
        tie_word_embeddings=bool(text.tie_word_embeddings),
        architectures=["InternVLForConditionalGeneration"],
        dtype=config.get("torch_dtype") or config.get("dtype"),
    )


def image_processor(config: dict[str, Any]) -> GotOcr2ImageProcessorPil:
    """Build the image processor with the tiling and normalization of the original `config.json`."""
    side = config.get("force_image_size") or config["vision_config"]["image_size"]
    return GotOcr2ImageProcessorPil(
        size={"height": side, "width": side},
        image_mean=list(IMAGENET_DEFAULT_MEAN),
        image_std=list(IMAGENET_DEFAULT_STD),
        crop_to_patches=bool(config.get("dynamic_image_size", True)),
        min_patches=int(config.get("min_dynamic_patch", 1)),
        max_patches=int(config.get("max_dynamic_patch", 12)),
    )


def _vision(config: dict[str, Any]) -> InternVLVisionConfig:
    given = config["vision_config"]
    try:
        norm, eps, qk_norm = given["norm_type"], given["layer_norm_eps"], bool(given["qk_normalization"])
        vision = InternVLVisionConfig(
            hidden_size=given["hidden_size"],
            intermediate_size=given["intermediate_size"],
            num_hidden_layers=given["num_hidden_layers"],
            num_attention_heads=given["num_attention_heads"],
            num_channels=given.get("num_channels", 3),
            image_size=config.get("force_image_size") or given["image_size"],
            patch_size=given["patch_size"],
            attention_bias=bool(given["qkv_bias"]),
            use_qk_norm=qk_norm,
            norm_type=norm,
            layer_norm_eps=eps,
            hidden_act=given.get("hidden_act", "gelu"),
            hidden_dropout_prob=given.get("dropout", 0.0),
            attention_dropout=given.get("attention_dropout", 0.0),
            initializer_range=given.get("initializer_range", 0.02),
            layer_scale_init_value=given.get("initializer_factor", 0.1),
        )
    except KeyError as missing:
        raise CheckpointError(f"config.json: vision_config has no {missing}") from None
    if norm not in ("layer_norm", "rms_norm"):
        raise CheckpointError(
            f"config.json: vision_config.norm_type {norm!r} is neither layer_norm nor rms_norm"
        )
    if qk_norm and eps != VISION_NORM_EPS:
        raise CheckpointError(
            f"config.json: vision_config.layer_norm_eps {eps} with qk_normalization; transformers' InternVL has "
            f"{VISION_NORM_EPS} there"
        )
    return vision


def _text(given: dict[str, Any], kind: str) -> Any:
    """Build the language model's configuration from the fields of its class, with RoPE settings in the current form."""
    target = LANGUAGE_MODELS[kind]
    given = dict(given)
    scaling = given.get("rope_scaling")
    if isinstance(scaling, dict):
        scaling = dict(scaling)
        scaling.setdefault("rope_type", scaling.pop("type", "default"))
        if kind == "phi3" and scaling["rope_type"] == "yarn":
            raise CheckpointError(
                "config.json: llm_config.rope_scaling is Phi-3's early 'yarn', which transformers no longer computes"
            )
        if scaling["rope_type"] == "su":
            scaling["rope_type"] = "longrope"
    known = set(target.__dataclass_fields__) - set(PreTrainedConfig.__dataclass_fields__)
    known = (known | {"tie_word_embeddings"}) - {"model_type", "rope_parameters"}
    fields = {key: given[key] for key in known & given.keys() if given[key] is not None}
    if kind == "internlm2":
        fields["attention_bias"] = bool(given.get("bias", False))
    for special in ("bos_token_id", "eos_token_id", "pad_token_id"):
        fields[special] = given.get(special)
    if kind in ("qwen2", "qwen3") and not fields.get("use_sliding_window"):
        fields.pop("sliding_window", None)
    rope = {"rope_theta": given.get("rope_theta", 10_000.0), **(scaling or {"rope_type": "default"})}
    try:
        return target(**fields, rope_parameters=rope)
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"config.json: llm_config does not describe a {kind} model ({one_line(error)})"
        ) from None
