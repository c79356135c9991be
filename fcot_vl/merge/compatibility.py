"""Check that checkpoints can be merged: same tensors, same shapes, same model. Weights are not read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fcot_vl.common.errors import CheckpointError
from fcot_vl.merge.checkpoint import FLOATS, Checkpoint

NAMED = 3  # maximum number of tensors named in a message
# Keys of config.json, at any depth, that change the meaning of the weights. Other differences are only reported.
DECISIVE = frozenset(
    {
        *(
            "model_type",
            "architectures",
            "hidden_act",
            "tie_word_embeddings",
            "layer_types",
            "image_token_id",
        ),
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim"),
        *("num_key_value_heads", "vocab_size", "rope_theta", "rope_scaling", "rope_parameters", "rope_type"),
        *("image_size", "patch_size", "downsample_ratio", "image_seq_length", "mrope_section"),
        *("vision_feature_layer", "vision_feature_select_strategy", "select_layer", "ps_version"),
        *("compress_ratio", "compressor", "visual_positions", "num_experts", "num_experts_per_tok"),
    }
)
HARMLESS = frozenset(
    {"transformers_version", "dtype", "torch_dtype", "_name_or_path", "use_cache", "auto_map"}
)


def same_architecture(reference: Checkpoint, others: Sequence[Checkpoint]) -> list[str]:
    """Check that `others` can be merged with `reference`.

    Returns:
        One line per difference in `config.json` that does not prevent merging; the reference's value is kept.

    Raises:
        CheckpointError: If tensors are missing or unexpected, shapes differ, integers meet floats, a checkpoint is
            quantized, or a decisive key of `config.json` differs.
    """
    notes = []
    for checkpoint in (reference, *others):
        if "quantization_config" in checkpoint.config:
            raise CheckpointError(
                f"{checkpoint.folder}: is quantized (quantization_config in config.json), so its numbers cannot be "
                "averaged; merge the checkpoints it was made from, then quantize"
            )
    for other in others:
        _same_tensors(reference, other)
        ours, theirs = _flat(reference.config), _flat(other.config)
        for key in sorted(ours.keys() | theirs.keys()):
            one, two = ours.get(key), theirs.get(key)
            parts = set(key.split("."))
            if one == two or parts & HARMLESS:
                continue
            difference = f"config.json's {key} is {_short(two)}, in {reference.folder} {_short(one)}"
            if parts & DECISIVE:
                raise CheckpointError(
                    f"{other.folder}: not the same model: {difference}; only checkpoints of one "
                    "architecture can be merged"
                )
            notes.append(f"{other.folder}: {difference}, which is kept")
    return notes


def _same_tensors(reference: Checkpoint, other: Checkpoint) -> None:
    missing = [name for name in reference.tensors if name not in other.tensors]
    added = [name for name in other.tensors if name not in reference.tensors]
    if missing:
        raise CheckpointError(
            f"{other.folder}: has no {_list(missing)}, which {reference.folder} has; "
            "check that both folders are complete and hold the same model"
        )
    if added:
        raise CheckpointError(
            f"{other.folder}: has {_list(added)}, which {reference.folder} has not; "
            "check that both folders are complete and hold the same model"
        )
    for name, one in reference.tensors.items():
        two = other.tensors[name]
        if one.shape != two.shape:
            raise CheckpointError(
                f"{other.folder}: {name} has the shape {list(two.shape)}, in {reference.folder} {list(one.shape)}; "
                "only checkpoints of one architecture can be merged"
            )
        if one.dtype != two.dtype and not (one.dtype in FLOATS and two.dtype in FLOATS):
            raise CheckpointError(
                f"{other.folder}: {name} is {two.dtype}, in {reference.folder} {one.dtype}; these cannot be averaged"
            )


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _flat(value: Any, above: str = "") -> dict[str, Any]:
    """Flatten nested keys, as in `text_config.hidden_size`."""
    if not isinstance(value, dict):
        return {above: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{above}.{key}" if above else str(key))
    return found


def _short(value: Any) -> str:
    return json.dumps(value)[:80]
