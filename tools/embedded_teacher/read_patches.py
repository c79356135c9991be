"""Stage 1 of the embedded teacher: its ViT learns to read the characters on every 14-pixel patch.

    python tools/embedded_teacher/read_patches.py PACKAGES FOLDER     # hours on 2 CPU cores

PACKAGES is the folder that `packages.py` filled. FOLDER receives `state.safetensors` every few minutes, `log.jsonl`,
and `vision.safetensors` at the end. Rerun the same command to resume: on one machine an interrupted run gives the same
weights as an uninterrupted one, since batch k depends on the seed and k only.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from model import WIDTH, build
from safetensors import safe_open
from safetensors.torch import save_file
from tiles import CLASSES, SLOTS, Sources, make_batch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import AutoTokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.train.muon import Muon

BATCH = 16  # tiles
STEPS = 16_000
WARM_UP, DECAY_FROM = 100, 0.6  # steps; share of the steps after which the rate falls to zero
MUON_RATE, ADAMW_RATE = 0.02, 2e-3
ALL_FROM = 2_500  # step from which tiles are as hard as they get
LARGE_FROM, LARGE_UNTIL = 6_200, 9_600  # steps between which print is blown up more and more
LARGE, LARGEST = 0.2, 80  # share of tiles with such print, pixels of its largest type in the end
COVER_WEIGHT = 0.5  # of reading what character a patch of such print is part of
BLANK_WEIGHT = torch.cat([torch.tensor([0.2]), torch.ones(CLASSES - 1)])
SAVE_EVERY, VALIDATE_EVERY = 200, 1_000
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255


def attention_in_float32(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **settings: Any
) -> tuple[Tensor, Any]:
    """Run scaled dot-product attention in float32 also under autocast: on CPUs it is faster than in bfloat16."""
    with torch.autocast("cpu", enabled=False):
        return ALL_ATTENTION_FUNCTIONS["sdpa"](
            module, query.float(), key.float(), value.float(), *args, **settings
        )


ALL_ATTENTION_FUNCTIONS.register("sdpa_float32", attention_in_float32)


class Reader(nn.Module):
    """The ViT and two linear readers, which are thrown away after the training.

    One reads up to `SLOTS` characters with their middle on a patch, the other the character that a patch is part of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tower = build(AutoTokenizer.from_pretrained(tiny_teacher_path())).model.vision_tower
        self.tower.config._attn_implementation = "sdpa_float32"
        self.head = nn.Linear(WIDTH, SLOTS * CLASSES)
        self.cover_head = nn.Linear(WIDTH, CLASSES)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[tiles, 256, SLOTS, CLASSES]`` and ``[tiles, 256, CLASSES]`` of uint8 ``[tiles, 3, 224, 224]``."""
        features = self.tower(pixel_values=(pixels.float() - MEAN) / STD).last_hidden_state[:, 1:]
        return self.head(features).unflatten(-1, (SLOTS, CLASSES)), self.cover_head(features)


class Batches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Batches by step, from `first` on."""

    def __init__(self, sources: Sources, seed: int, first: int, last: int) -> None:
        self.sources, self.seed, self.first, self.last = sources, seed, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        step = self.first + index
        return make_batch(self.sources, self.seed, step, BATCH, min(1.0, step / ALL_FROM), large(step))


def autocast_type() -> torch.dtype | None:
    """bfloat16 where the CPU has units for it; None (float32) elsewhere, where bfloat16 is several times slower."""
    has_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_units else None


def large(step: int) -> tuple[float, float]:
    """Share of tiles of print blown up, and the size of its largest type in pixels."""
    grown = (step - LARGE_FROM) / (LARGE_UNTIL - LARGE_FROM)
    if grown < 0:
        return 0.0, 0.0
    return LARGE, 40 * (LARGEST / 40) ** min(1.0, grown)


def rate(step: int) -> float:
    """Factor on the learning rates."""
    return min(1.0, (step + 1) / WARM_UP, (STEPS - step) / (STEPS * (1 - DECAY_FROM)))


def reading_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Weighted cross-entropy of the characters of patches.

    A character counts for more in a tile with few of them: large print has under ten on a tile, small print hundreds.

    Args:
        logits: ``[tiles, patches, SLOTS, CLASSES]``.
        target: ``[tiles, patches, SLOTS]``, -100 where unknown.
    """
    weight = BLANK_WEIGHT[target.clamp(min=0)] * (target >= 0)
    printed = (target > 0).flatten(1).sum(1).clamp(min=1)
    weight = weight * torch.where(target > 0, (60 / printed).sqrt().clamp(1, 6)[:, None, None], 1.0)
    each = F.cross_entropy(
        logits.float().flatten(0, 2), target.flatten(), ignore_index=-100, reduction="none"
    )
    return (each * weight.flatten()).sum() / weight.sum()


def right_share(logits: Tensor, target: Tensor) -> float:
    """Share of the printed characters that are read right."""
    printed = target > 0
    return float((logits.argmax(-1) == target)[printed].float().mean())


@torch.no_grad()
def validate(reader: Reader, sources: Sources, dtype: torch.dtype | None) -> tuple[float, float]:
    """Shares of characters read right on 192 tiles of plain print, and on 96 of print blown up.

    Their typefaces and PDFs are not trained on.
    """
    reader.eval()
    shares: list[float] = []
    lines: list[float] = []
    for index in range(18):
        pixels, target, _ = make_batch(
            sources, 1, index, BATCH, large=(0.0, 0.0) if index < 12 else (1.0, LARGEST)
        )
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            (shares if index < 12 else lines).append(right_share(reader(pixels)[0], target))
    reader.train()
    return sum(shares) / len(shares), sum(lines) / len(lines)


def save(path: Path, reader: nn.Module, optimizer: Muon, step: int) -> None:
    """Write weights and optimizer state to `path`, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in reader.named_parameters():
        tensors[f"model.{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"step": str(step)})
    partial.replace(path)


def load(path: Path, reader: nn.Module, optimizer: Muon) -> int:
    """Read what `save` wrote; returns the number of steps done."""
    with safe_open(path, "pt") as file:
        for name, parameter in reader.named_parameters():
            parameter.data.copy_(file.get_tensor(f"model.{name}"))
            state: dict[str, Any] = {}
            for key in ("momentum", "step", "mean", "square"):
                if f"{key}.{name}" in file.keys():  # noqa: SIM118
                    value = file.get_tensor(f"{key}.{name}")
                    state[key] = int(value) if key == "step" else value
            optimizer.state[parameter] = state
        return int(file.metadata()["step"])


def write_vision(reader: Reader, path: Path) -> None:
    """Write what stage 2 begins with: the ViT, and the reader of middles as ``head.*``."""
    weights = {name.removeprefix("tower."): p.detach() for name, p in reader.named_parameters()}
    save_file({name: weight for name, weight in weights.items() if "cover_head" not in name}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path, help="folder that packages.py filled")
    parser.add_argument("folder", type=Path, help="output folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and tiles (default: 0)")
    parser.add_argument("--steps", type=int, default=STEPS, help="stop after this many steps (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the model (default: 1)")
    parser.add_argument("--workers", type=int, default=1, help="processes that make tiles (default: 1)")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    dtype = autocast_type()
    reader = Reader().train()
    optimizer = Muon(reader.named_parameters(), MUON_RATE, ADAMW_RATE)
    state = args.folder / "state.safetensors"
    step = load(state, reader, optimizer) if state.exists() else 0
    sources = Sources.find(args.packages)
    held_out = Sources.find(args.packages, "validation")
    print(
        f"{sum(p.numel() for p in reader.tower.parameters()) / 1e6:.2f} M parameters, "
        f"{sum(map(len, sources.faces))} typefaces, {len(sources.pdfs)} PDFs, {dtype or torch.float32}, step {step}",
        flush=True,
    )
    last = min(args.steps, STEPS)
    loader = DataLoader(Batches(sources, args.seed, step, last), batch_size=None, num_workers=args.workers)
    peaks = [group["lr"] for group in optimizer.param_groups]
    begun, first = time.monotonic(), step
    shown = 0.0
    with (args.folder / "log.jsonl").open("a") as log:
        for pixels, target, cover in loader:
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                logits, parts = reader(pixels)
            loss = reading_loss(logits, target)
            if (cover >= 0).any():
                loss = loss + COVER_WEIGHT * F.cross_entropy(
                    parts.float().flatten(0, 1), cover.flatten(), BLANK_WEIGHT, ignore_index=-100
                )
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rate(step)
            optimizer.zero_grad()
            loss.backward()
            # bfloat16 in Muon's products saves a tenth of a step
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                optimizer.step()
            step += 1
            share = right_share(logits, target)
            shown = share if step == first + 1 else 0.96 * shown + 0.04 * share
            if step % 50 == 0:
                speed = (step - first) * BATCH / (time.monotonic() - begun)
                hours = (STEPS - step) * BATCH / speed / 3600
                print(
                    f"step {step}/{STEPS} loss {loss.item():.3f} read {shown:.3f} {speed:.1f} tiles/s, "
                    f"{hours:.1f} h left",
                    flush=True,
                )
            if step % SAVE_EVERY == 0 or step == last:
                save(state, reader, optimizer, step)
            if step % VALIDATE_EVERY == 0 or step == STEPS:
                unseen, lines = validate(reader, held_out, dtype)
                print(
                    f"validation at step {step}: {unseen:.3f} of characters, {lines:.3f} in lines", flush=True
                )
                figures = {"read": shown, "validation": unseen, "lines": lines}
                log.write(json.dumps({"step": step, **{n: round(v, 4) for n, v in figures.items()}}) + "\n")
                log.flush()
    if step >= STEPS:
        write_vision(reader, args.folder / "vision.safetensors")


if __name__ == "__main__":
    main()
