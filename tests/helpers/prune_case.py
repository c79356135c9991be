"""Tiny InternVLs with each decoder, and batches of pages for them: what the tests of the baselines share."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    Phi3Config,
    Qwen2Config,
)

IMAGE, PAD, PER_TILE, N_LAYERS = 7, 0, 16, 4
SIZES: dict[str, int] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


DECODERS = {"qwen2": Qwen2Config, "llama": LlamaConfig, "phi3": Phi3Config}


@cache
def make_model(decoder: str = "qwen2", attention: str = "sdpa") -> InternVLForConditionalGeneration:
    torch.manual_seed(0)
    vision = InternVLVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=[32, 32],
        patch_size=[4, 4],
        attn_implementation=attention,
    )
    text = DECODERS[decoder](**SIZES, initializer_range=0.3)
    config = InternVLConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_id=IMAGE,
        image_seq_length=PER_TILE,
        downsample_ratio=0.5,
    )
    config._attn_implementation = attention
    model = InternVLForConditionalGeneration._from_config(config, attn_implementation=attention)
    for parameter in model.model.language_model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config.eos_token_id = None  # every test decodes to its last token
    model.generation_config.pad_token_id = PAD
    return model.eval()


def prompt_ids(n_tiles: int, n_before: int, n_after: int, seed: int) -> list[int]:
    words = torch.randint(
        8, 64, (n_before + n_after,), generator=torch.Generator().manual_seed(seed)
    ).tolist()
    return words[:n_before] + [IMAGE] * (PER_TILE * n_tiles) + words[n_before:]


def batch_of(*rows: tuple[int, int, int], seed: int = 0) -> dict[str, Tensor]:
    """Left-padded rows of (tiles, tokens before, tokens after); row contents do not depend on the batch."""
    ids = [prompt_ids(*row, seed=seed + sum(row)) for row in rows]
    longest = max(map(len, ids))
    tiles = [
        torch.randn(row[0], 3, 32, 32, generator=torch.Generator().manual_seed(seed + sum(row)))
        for row in rows
    ]
    return {
        "input_ids": torch.tensor([[PAD] * (longest - len(row)) + row for row in ids]),
        "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids]),
        "pixel_values": torch.cat(tiles),
    }


RAGGED = batch_of((1, 3, 4), (3, 2, 6), (2, 5, 9))


@torch.no_grad()
def run(model: Any, inputs: dict[str, Tensor], n_new: int = 6) -> tuple[Tensor, Tensor, Any]:
    """Greedy tokens, their logits, and the cache."""
    out = model.generate(
        **inputs,
        max_new_tokens=n_new,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return out.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(out.logits, 1), out.past_key_values


def visual_counts(inputs: dict[str, Tensor]) -> list[int]:
    return (inputs["input_ids"] == IMAGE).sum(1).tolist()


def count_hooks(model: Any) -> int:
    """Forward hooks, but those that transformers puts in for itself at a model's first call, and leaves there."""
    hooks = (
        hook
        for module in model.modules()
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    )
    return sum(not hook.__module__.startswith("transformers.") for hook in hooks)


@torch.no_grad()
def naive_row(
    model: Any, inputs: dict[str, Tensor], row: int, kept: Tensor, layer: int, new: Tensor
) -> Tensor:
    """Next-token logits after the row's prompt and each of `new`, without batch, padding, cache or hooks.

    kept: bool over the row's visual tokens. The whole text is recomputed in every layer, and from `layer` on the
    dropped tokens are simply not there; positions are those of the whole text.
    """
    decoder = model.model.language_model
    valid = inputs["attention_mask"][row].bool()
    ids = torch.cat([inputs["input_ids"][row][valid], new])
    image = (ids == IMAGE) & (
        torch.arange(len(ids)) < len(ids) - len(new)
    )  # a random model may say it itself
    hidden = decoder.embed_tokens(ids)[None]
    first = int((inputs["input_ids"][:row] == IMAGE).sum()) // PER_TILE
    n_tiles = int(image.sum()) // PER_TILE
    features = model.get_image_features(inputs["pixel_values"][first : first + n_tiles]).pooler_output
    hidden[0, image] = features.flatten(0, 1)
    positions = torch.arange(len(ids))[None]
    stays = torch.ones(len(ids), dtype=torch.bool)
    stays[image] = kept
    for number, block in enumerate(decoder.layers):
        if number == layer:
            hidden, positions = hidden[:, stays], positions[:, stays]
        n = hidden.shape[1]
        mask = torch.full((1, 1, n, n), torch.finfo(torch.float32).min).triu(1)
        rotary = decoder.rotary_emb(hidden, positions)
        hidden = block(hidden, attention_mask=mask, position_embeddings=rotary, position_ids=positions)
    logits = model.lm_head(decoder.norm(hidden))[0]
    return logits[-len(new) - 1 :]
