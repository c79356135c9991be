"""Start of stage 2: the decoder of the first embedded teacher, widened, behind the ViT of stage 1.

    python tools/embedded_teacher/start.py VISION OLD START     # minutes on 2 CPU cores

VISION is `vision.safetensors` of stage 1. OLD is the folder of the first embedded teacher, which read print on a fixed
grid only (`fcot_vl/models/tiny` before December 2026, in the repository's history): its decoder already points and
copies. START receives the weights with which `read_pages.py` begins.

The old decoder becomes layers 1 to 4 of six, in the first 256 of 320 channels, and computes what it did before. Then
the new projector learns to give the old visual tokens for the new ViT's features, on print that the old ViT can read.
"""

from __future__ import annotations

import argparse
import random
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from model import TILE, WIDTH, build
from PIL import Image, ImageDraw, ImageFont
from read_patches import MEAN, STD, autocast_type
from safetensors.torch import load_file, save_file
from tiles import CLASSES, SLOTS
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoTokenizer, InternVLForConditionalGeneration

from fcot_vl.models.tiny import tiny_teacher_path

FIRST_LAYER = 1  # of the old decoder in the new one
STEPS, BATCH, RATE = 500, 24, 2e-3  # of the projector's alignment, in tiles
CELL = (7, 14)  # pixels of a character of the old print
FONTS = ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique")


@torch.no_grad()
def widen(old: InternVLForConditionalGeneration, new: InternVLForConditionalGeneration) -> None:
    """Put the decoder of `old` into `new`, which may be wider and deeper; what it computes stays the same.

    Channels, units and heads that are added write nothing at first; layers that are added pass on what they get.
    """
    for layer in new.model.language_model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    added = len(new.model.language_model.layers) - len(old.model.language_model.layers)
    first = FIRST_LAYER if added else 0
    grown = (old.config.text_config.hidden_size / new.config.text_config.hidden_size) ** 0.5
    targets = dict(new.named_parameters())
    new.model.language_model.embed_tokens.weight.zero_()
    for name, source in old.named_parameters():
        if "language_model" not in name and "lm_head" not in name:
            continue
        parts = name.split(".")
        if "layers" in parts:
            parts[parts.index("layers") + 1] = str(int(parts[parts.index("layers") + 1]) + first)
        target = targets[".".join(parts)]
        if "norm" in parts[-2]:  # the mean square is over more channels now, and the added ones are zero
            target.fill_(grown)
            target[: len(source)] = source * grown
        else:
            target[tuple(slice(n) for n in source.shape)] = source


def old_print(rng: random.Random) -> Image.Image:
    """A tile of print as the old teacher knew it: one fixed pitch, sizes 1 and 2."""
    spec = find_spec("matplotlib")
    assert spec is not None and spec.origin is not None
    font = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{rng.choice(FONTS)}.ttf"
    image = Image.new("L", (TILE, TILE), rng.randint(235, 255))
    pen, ink = ImageDraw.Draw(image), rng.randint(0, 60)
    row = 0
    while row < TILE // CELL[1]:
        scale = 2 if rng.random() < 0.25 and row + 1 < TILE // CELL[1] else 1
        face = ImageFont.truetype(str(font), round(11.5 * scale))
        for column in range(0, TILE // CELL[0] - scale + 1, scale):
            if rng.random() < 0.75:
                letter = (
                    chr(rng.randint(33, 126)) if rng.random() < 0.3 else rng.choice("etaoinshrdlu0123456789")
                )
                at = (column * CELL[0], row * CELL[1] + 11 * scale)
                pen.text(at, letter, fill=ink, font=face, anchor="ls")
        row += scale if rng.random() < 0.7 else scale + 1
    return image.convert("RGB")


def visual_tokens(model: InternVLForConditionalGeneration, features: Tensor) -> Tensor:
    """Visual tokens ``[tiles, tokens, width]`` of the ViT's last hidden state ``[tiles, 1 + patches, width]``."""
    side = int((features.shape[1] - 1) ** 0.5)
    grid = model.model.pixel_shuffle(features[:, 1:].unflatten(1, (side, side)), scale_factor=0.5)
    return model.model.multi_modal_projector(grid.flatten(1, 2))


def align(
    old: InternVLForConditionalGeneration, new: InternVLForConditionalGeneration, seed: int, steps: int
) -> float:
    """Train the projector of `new` to give the visual tokens of `old`; returns the share of variance explained."""
    rng = random.Random(f"start/{seed}")
    projector = new.model.multi_modal_projector
    width = old.config.text_config.hidden_size
    optimizer = torch.optim.AdamW(projector.parameters(), RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    dtype, explained = autocast_type(), 0.0
    for step in range(steps):
        tiles = np.stack([np.asarray(old_print(rng)) for _ in range(BATCH)])
        pixels = (torch.from_numpy(tiles).permute(0, 3, 1, 2).float() - MEAN) / STD
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            with torch.no_grad():
                wanted = visual_tokens(
                    old, old.model.vision_tower(pixel_values=pixels).last_hidden_state
                ).float()
                features = new.model.vision_tower(pixel_values=pixels).last_hidden_state
            given = visual_tokens(new, features).float()
        error = (given[..., :width] - wanted).square().mean()
        spread = (wanted - wanted.mean((0, 1))).square().mean()
        optimizer.zero_grad()
        (error + given[..., width:].square().sum() / wanted.numel()).div(spread).backward()
        optimizer.step()
        schedule.step()
        share = 1 - float(error.detach() / spread)
        explained = 0.9 * explained + 0.1 * share if step else share
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}/{steps}: {explained:.3f} of the variance explained", flush=True)
    return explained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vision", type=Path, help="vision.safetensors of stage 1")
    parser.add_argument("old", type=Path, help="folder of the first embedded teacher")
    parser.add_argument("start", type=Path, help="file to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is added (default: 0)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    new = build(AutoTokenizer.from_pretrained(tiny_teacher_path()))
    old = AutoModelForImageTextToText.from_pretrained(args.old, dtype=torch.float32).eval()
    tensors = load_file(args.vision)
    head = nn.Linear(WIDTH, SLOTS * CLASSES)
    head.load_state_dict({name: tensors.pop(f"head.{name}") for name in ("weight", "bias")})
    new.model.vision_tower.load_state_dict(tensors, strict=False)
    widen(old, new)
    align(old, new, args.seed, STEPS)
    weights = {f"model.{name}": p.detach() for name, p in new.named_parameters()}
    save_file(weights | {f"patch_head.{name}": p.detach() for name, p in head.named_parameters()}, args.start)


if __name__ == "__main__":
    main()
