"""Description of a checkpoint and of its costs from the configuration alone, without reading weights.

The checkpoint is in the original layout, in the Hugging Face layout, or a student. The output lists its parts and, for
every compress ratio, the visual tokens, the operations of prefill (paper, eq. 6-7), the KV cache, and the memory of
both training stages. Operations and cache bytes are counted. The memory of training is an estimate; see `training_gib`.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from transformers import InternVLConfig
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from fcot_vl.common.console import show
from fcot_vl.common.errors import CheckpointError
from fcot_vl.convert.checkpoint import read_json
from fcot_vl.convert.config import image_processor, internvl_config, language_model_of
from fcot_vl.convert.tokenizer import image_token_id
from fcot_vl.models.auto import read_config
from fcot_vl.models.compressors.registry import COMPRESSORS
from fcot_vl.models.flops import cache_bytes, compressor_flops, prefill_flops, projector_flops, vit_flops
from fcot_vl.models.internvl.configuration import COMPRESS_RATIOS, FCoTVLConfig
from fcot_vl.models.internvl.modeling import FCoTVLForConditionalGeneration
from fcot_vl.models.loading import checked

A4 = (1240, 1754)  # pixels of a page at 150 dpi
QUESTION = 64  # text tokens counted in addition to the visual ones in a prefill
GIB = 2**30
PARTS = {
    "vision tower": "model.vision_tower.",
    "projector": "model.multi_modal_projector.",
    "decoder": "model.language_model.",
    "head": "lm_head.",
}


def inspect(
    path: str | Path,
    page: tuple[int, int] = A4,
    context: int = 4096,
    gpus: int = 1,
    compressor: str = "conv",
) -> dict[str, Any]:
    """Print and return the description and the costs of a checkpoint.

    Args:
        path: Folder in the original or the Hugging Face layout, folder of a student, or hub id of the latter two.
        page: Width and height in pixels of the page for which costs are counted.
        context: Number of tokens of a training sequence.
        gpus: Number of GPUs over which training is sharded (FSDP).
        compressor: Compressor of the students.

    Returns:
        JSON-serializable dict: `family`, `language_model`, `parameters` by part, `tiles` of the page, and per ratio
        `tokens_per_tile`, `visual_tokens`, `compressor`, `compressor_parameters`, `compressor_flops`, `prefill_flops`,
        `vit_flops`, `projector_flops` (compressor and projector), `kv_cache_bytes`, `realign_gib`, `post_train_gib`.

    Raises:
        CheckpointError: If the checkpoint is not an InternVL, or its files cannot be read.
        ValueError: If a number is out of range, or the compressor is unknown.
    """
    if min(page) < 1 or context < 1 or gpus < 1:
        raise ValueError(f"page, context and gpus must be at least 1, got {page}, {context} and {gpus}")
    if compressor not in COMPRESSORS:
        raise ValueError(f"compressor must be one of {', '.join(COMPRESSORS)}, got {compressor!r}")
    with checked(path, "cannot be described", own_code_refused=False):
        return _inspect(str(path), page, context, gpus, compressor)


def _inspect(path: str, page: tuple[int, int], context: int, gpus: int, compressor: str) -> dict[str, Any]:
    family, language_model, config, tiling = _read(path)
    tiles = tiling.get_number_of_image_patches(page[1], page[0], {"crop_to_patches": True})
    models = _models(config, compressor)
    found = {
        "path": path,
        "family": family,
        "language_model": language_model,
        "dtype": str(config.dtype or "not stated").removeprefix("torch."),
        "image_size": config.vision_config.image_size[0],
        "parameters": _parameters(models[0]),
        "page": list(page),
        "tiles": tiles,
        "context": context,
        "gpus": gpus,
        "ratios": [_ratio(model, tiles, context, gpus) for model in models],
    }
    _show(found)
    return found


def training_gib(parameters: int, trained: int, text: Any, context: int, gpus: int) -> float:
    """Estimate the GiB that each GPU needs to train, without allocator slack or fragmentation, one sequence per GPU.

    The setup is that of `fcot_vl/recipes/scale`. Frozen weights are bfloat16 (2 bytes). Trained weights are float32
    with a gradient and the two moments of AdamW (16 bytes). All are sharded over `gpus`. Activation checkpointing keeps
    the input of each decoder layer (2 bytes per token and channel), and the activations of one layer while it is
    recomputed (34 bytes; Korthikanti et al. 2022, eq. 2, without the attention map, which is not kept). Logits are
    computed in chunks, counted as 0.25 GiB.
    """
    states = (2 * (parameters - trained) + 16 * trained) / gpus
    activations = (2 * text.num_hidden_layers + 34) * context * text.hidden_size
    return (states + activations) / GIB + 0.25


def _read(path: str) -> tuple[str, str, InternVLConfig, GotOcr2ImageProcessorPil]:
    """Read (family, language model, configuration, image processor) of a checkpoint."""
    folder = Path(path)
    if folder.is_dir():
        raw = read_json(folder / "config.json")
        if "llm_config" in raw:
            kind = language_model_of(raw)
            token = image_token_id(folder, None)
            config = internvl_config(raw, -1 if token is None else token)
            return "InternVL, original layout", kind, config, image_processor(raw)
    elif folder.suffix or path.startswith((".", "/")):
        raise CheckpointError(f"{path}: no such folder")
    config = read_config(path)
    if not isinstance(config, InternVLConfig):
        raise CheckpointError(f"{path}: this is a {config.model_type} model, not an InternVL")
    family = "student of an InternVL" if isinstance(config, FCoTVLConfig) else "InternVL, Hugging Face layout"
    try:
        tiling = GotOcr2ImageProcessorPil.from_pretrained(path, trust_remote_code=False)
    except OSError:  # a folder without a processor: use the tiling of the original
        height, width = config.vision_config.image_size
        tiling = GotOcr2ImageProcessorPil(size={"height": height, "width": width})
    return family, config.text_config.model_type, config, tiling


def _models(config: InternVLConfig, compressor: str) -> list[Any]:
    """Build the student itself, or the teacher's students of every possible ratio, ratio 1 first.

    The models are on the meta device and use no memory.
    """
    students = [config] if isinstance(config, FCoTVLConfig) else []
    if not students:
        for ratio in COMPRESS_RATIOS:
            with contextlib.suppress(ValueError):  # the ratio does not divide the tokens of a tile
                students.append(FCoTVLConfig.from_teacher(config, ratio, compressor))
    with torch.device("meta"):
        return [FCoTVLForConditionalGeneration(student) for student in students]


def _parameters(model: Any) -> dict[str, int]:
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():  # a tied head is counted once, as the embedding
        counts[next(part for part, prefix in PARTS.items() if name.startswith(prefix))] += parameter.numel()
    return counts


def _ratio(model: Any, tiles: int, context: int, gpus: int) -> dict[str, Any]:
    student, text = model.config, model.config.text_config
    total = sum(p.numel() for p in model.parameters())
    adaptor = sum(p.numel() for p in model.model.multi_modal_projector.parameters())
    tokens = tiles * student.image_seq_length
    in_prefill = [tokens + QUESTION] * text.num_hidden_layers
    return {
        "compress_ratio": student.compress_ratio,
        "tokens_per_tile": student.image_seq_length,
        "visual_tokens": tokens,
        "compressor": student.compressor if student.compress_ratio > 1 else None,
        "compressor_parameters": sum(
            p.numel() for p in model.model.multi_modal_projector.compressor.parameters()
        ),
        "compressor_flops": compressor_flops(model, tiles),
        "prefill_flops": prefill_flops(text, in_prefill),
        "vit_flops": vit_flops(student.vision_config, tiles),
        "projector_flops": projector_flops(model, tiles),
        "kv_cache_bytes": cache_bytes(text, in_prefill, 2),
        "realign_gib": training_gib(total, adaptor, text, context, gpus)
        if student.compress_ratio > 1
        else None,
        "post_train_gib": training_gib(total, total, text, context, gpus),
    }


def _show(found: dict[str, Any]) -> None:
    parts = found["parameters"]
    total = sum(parts.values())
    show(
        f"{found['path']}: {found['family']}, {found['language_model']} decoder, "
        f"{total / 1e6:,.1f} M parameters ("
        + ", ".join(f"{part} {count / 1e6:,.1f}" for part, count in parts.items())
        + f"), {found['dtype']}, {found['image_size']}-pixel tiles"
    )
    width, height = found["page"]
    table = Table(
        title=f"A page of {width}x{height} pixels ({found['tiles']} tiles) and {QUESTION} tokens of text; training at "
        f"{found['context']} tokens on {found['gpus']} GPU{'s' if found['gpus'] > 1 else ''} (estimates)"
    )
    for column in (
        "ratio",
        "a tile",
        "visual",
        "prefill\nGFLOP",
        "of\n1x",
        "ViT\nGFLOP",
        "cache\nMB",
        "stage 1\nGiB",
        "stage 2\nGiB",
    ):
        table.add_column(column, justify="right")
    first = found["ratios"][0]
    for row in found["ratios"]:
        share = row["prefill_flops"] / first["prefill_flops"] if first["compress_ratio"] == 1 else None
        table.add_row(
            f"{row['compress_ratio']}x",
            str(row["tokens_per_tile"]),
            f"{row['visual_tokens']:,}",
            f"{row['prefill_flops'] / 1e9:,.2f}",
            "-" if share is None else f"{share:.0%}",
            f"{row['vit_flops'] / 1e9:,.2f}",
            f"{row['kv_cache_bytes'] / 1e6:,.1f}",
            "-" if row["realign_gib"] is None else f"{row['realign_gib']:,.1f}",
            f"{row['post_train_gib']:,.1f}",
        )
    show(table)
    costs = [
        f"{row['compress_ratio']}x {row['compressor_parameters'] / 1e6:,.1f} M parameters, "
        f"{row['compressor_flops'] / 1e9:,.2f} GFLOP"
        for row in found["ratios"]
        if row["compressor"]
    ]
    if costs:
        show(f"compressor {found['ratios'][-1]['compressor']}: {'; '.join(costs)}")
    show(json.dumps(found))


def page_size(text: str) -> tuple[int, int]:
    """Parse a size such as `1240x1754` as (width, height).

    Raises:
        ValueError: If the text is not WIDTHxHEIGHT.
    """
    width, by, height = text.lower().partition("x")
    if not (by and width.isdigit() and height.isdigit()):
        raise ValueError(f"a page is WIDTHxHEIGHT in pixels, such as 1240x1754, got {text!r}")
    return int(width), int(height)
