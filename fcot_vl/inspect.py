"""What a checkpoint is and what it would cost, from its configuration alone: no weight is read.

Takes a checkpoint in the original layout, one in the Hugging Face layout, or a student; prints its parts, and for every
compress ratio the visual tokens, the prefill's operations (paper eq. 6-7), the cache, and the memory of both training
stages. Operations and cache bytes are counted; memory of training is an estimate, made as `training_gib` says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, InternVLConfig
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from fcot_vl.convert.architecture import internvl_config, language_model_of
from fcot_vl.convert.source import CheckpointError, read_json
from fcot_vl.convert.tokenizer import image_token_id
from fcot_vl.model.configuration import COMPRESS_RATIOS, FCoTVLConfig
from fcot_vl.model.cost import cache_bytes, prefill_flops, projector_flops, vit_flops
from fcot_vl.model.modeling import FCoTVLForConditionalGeneration

A4 = (1240, 1754)  # pixels of a page at 150 dpi
QUESTION = 64  # text tokens counted beside the visual ones in a prefill
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
    console: Console | None = None,
) -> dict[str, Any]:
    """Print and return what a checkpoint is and costs.

    Args:
        path: folder in the original or the Hugging Face layout, or a student's; or a hub id of the latter two.
        page: width and height of the page that is counted, in pixels.
        context: tokens of a training sequence.
        gpus: GPUs that training is sharded over (FSDP).
        compressor: of the students.

    Returns:
        JSON-ready: `family`, `language_model`, `parameters` by part, `tiles` of the page, and per ratio
        `tokens_per_tile`, `visual_tokens`, `prefill_flops`, `vit_flops`, `projector_flops`, `kv_cache_bytes`,
        `realign_gib`, `post_train_gib`.

    Raises:
        CheckpointError: not an InternVL, or files that cannot be read.
        ValueError: a number out of range.
    """
    if min(page) < 1 or context < 1 or gpus < 1:
        raise ValueError(f"page, context and gpus must be at least 1, got {page}, {context} and {gpus}")
    family, language_model, config, tiling = _read(str(path))
    tiles = _tiles(page, config, tiling)
    is_student = isinstance(config, FCoTVLConfig)
    ratios = [config.compress_ratio] if is_student else [r for r in COMPRESS_RATIOS if _divides(config, r)]
    rows = [_ratio(config, ratio, compressor, tiles, context, gpus) for ratio in ratios]
    found = {
        "path": str(path),
        "family": family,
        "language_model": language_model,
        "dtype": str(config.dtype or "not stated").removeprefix("torch."),
        "image_size": config.vision_config.image_size[0],
        "parameters": _parameters(config),
        "page": list(page),
        "tiles": tiles,
        "context": context,
        "gpus": gpus,
        "ratios": rows,
    }
    _show(found, console or Console())
    return found


def training_gib(parameters: int, trained: int, text: Any, context: int, gpus: int) -> float:
    """GiB a GPU needs to train, an estimate: no allocator slack, no fragmentation, one sequence a GPU.

    Weights are float32 (4 bytes); what is trained adds a gradient (4) and AdamW's two moments (8); all three sharded
    over `gpus`. Activations are bfloat16, kept for the decoder's layers as 34 bytes a token and channel (Korthikanti
    et al. 2022, eq. 2, without the attention map, which is not kept). Logits are made in chunks, counted as 0.25 GiB.
    """
    states = (4 * parameters + 12 * trained) / gpus
    activations = 34 * context * text.hidden_size * text.num_hidden_layers
    return (states + activations) / GIB + 0.25


def _read(path: str) -> tuple[str, str, InternVLConfig, dict[str, Any]]:
    """(family, language model, configuration, tiling settings)."""
    folder = Path(path)
    if folder.is_dir():
        raw = read_json(folder / "config.json")
        if "llm_config" in raw:
            kind = language_model_of(raw)
            token = image_token_id(folder, None)
            tiling = {
                "min_patches": raw.get("min_dynamic_patch", 1),
                "max_patches": raw.get("max_dynamic_patch", 12),
            }
            return (
                "InternVL, original layout",
                kind,
                internvl_config(raw, -1 if token is None else token),
                tiling,
            )
    elif folder.suffix or path.startswith((".", "/")):
        raise CheckpointError(f"{path}: no such folder")
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a model ({' '.join(str(error).split())[:160]})") from None
    if not isinstance(config, InternVLConfig):
        raise CheckpointError(f"{path}: this is a {config.model_type} model, not an InternVL")
    family = "student of an InternVL" if isinstance(config, FCoTVLConfig) else "InternVL, Hugging Face layout"
    settings = folder / "preprocessor_config.json"
    return family, config.text_config.model_type, config, read_json(settings) if settings.exists() else {}


def _tiles(page: tuple[int, int], config: InternVLConfig, tiling: dict[str, Any]) -> int:
    """Tiles of a page, thumbnail included."""
    height, width = config.vision_config.image_size
    columns, rows = get_optimal_tiled_canvas(
        (page[1], page[0]),
        (height, width),
        int(tiling.get("min_patches", 1)),
        int(tiling.get("max_patches", 12)),
    )
    return columns * rows + (1 if columns * rows > 1 else 0)


def _divides(config: InternVLConfig, ratio: int) -> bool:
    try:
        FCoTVLConfig.from_teacher(config, ratio)
    except ValueError:
        return False
    return True


def _model(config: InternVLConfig) -> Any:
    with torch.device("meta"):
        return FCoTVLForConditionalGeneration(config)


def _parameters(config: InternVLConfig) -> dict[str, int]:
    model = _model(config if isinstance(config, FCoTVLConfig) else FCoTVLConfig.from_teacher(config, 1))
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():  # a tied head is counted once, as the embedding
        counts[next(part for part, prefix in PARTS.items() if name.startswith(prefix))] += parameter.numel()
    return counts


def _ratio(
    config: InternVLConfig, ratio: int, compressor: str, tiles: int, context: int, gpus: int
) -> dict[str, Any]:
    student = (
        config if isinstance(config, FCoTVLConfig) else FCoTVLConfig.from_teacher(config, ratio, compressor)
    )
    model, text = _model(student), student.text_config
    total = sum(p.numel() for p in model.parameters())
    adaptor = sum(p.numel() for p in model.model.multi_modal_projector.parameters())
    tokens = tiles * student.image_seq_length
    in_prefill = [tokens + QUESTION] * text.num_hidden_layers
    trains = ratio > 1
    return {
        "compress_ratio": ratio,
        "tokens_per_tile": student.image_seq_length,
        "visual_tokens": tokens,
        "prefill_flops": prefill_flops(text, in_prefill),
        "vit_flops": vit_flops(student.vision_config, tiles),
        "projector_flops": projector_flops(model, tiles),
        "kv_cache_bytes": cache_bytes(text, in_prefill, 2),
        "realign_gib": training_gib(total, adaptor, text, context, gpus) if trains else None,
        "post_train_gib": training_gib(total, total, text, context, gpus),
    }


def _show(found: dict[str, Any], console: Console) -> None:
    parts = found["parameters"]
    total = sum(parts.values())
    console.print(
        f"[bold]{found['path']}[/bold]: {found['family']}, {found['language_model']} decoder, "
        f"{total / 1e6:,.1f} M parameters ("
        + ", ".join(f"{part} {count / 1e6:,.1f}" for part, count in parts.items())
        + f"), {found['dtype']}, {found['image_size']}-pixel tiles",
        soft_wrap=True,
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
    console.print(table)
    console.print(json.dumps(found), markup=False, highlight=False, soft_wrap=True)


def page_size(text: str) -> tuple[int, int]:
    """`1240x1754` as (width, height). Raises ValueError."""
    width, by, height = text.lower().partition("x")
    if not (by and width.isdigit() and height.isdigit()):
        raise ValueError(f"a page is WIDTHxHEIGHT in pixels, such as 1240x1754, got {text!r}")
    return int(width), int(height)
