"""Stage 2 of the embedded teacher: the whole model learns to read and to answer, shown where to look.

    python tools/embedded_teacher/read_pages.py PACKAGES START FOLDER     # many hours on 2 CPU cores

START is what `start.py` wrote. The loss is cross-entropy on answer tokens, plus three aids that the
generator makes possible and that are thrown away: some attention heads (`GUIDED`) are pulled towards the visual token
that shows the next character; a linear reader tells which of the characters of that token is next; and the reader of
stage 1 keeps the ViT reading every patch. Rerun the same command to resume.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from model import WIDTH, build
from read_patches import BLANK_WEIGHT, MEAN, STD, autocast_type, load, right_share, save
from safetensors.torch import load_file, save_file
from sequences import FIRST_VISUAL, TOKEN_SLOTS, Batch, Example, Mix
from tiles import CLASSES, SLOTS
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import AutoTokenizer, InternVLForConditionalGeneration, PreTrainedTokenizerFast

from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.synthesize.documents.tasks import TASKS
from fcot_vl.train.muon import Muon

POOL = 96  # examples that are sorted by length together
TOKENS = 5_000  # most padded tokens of a batch
EXAMPLES = 64_000
GUIDED = ((2, 0), (3, 0), (3, 1), (4, 0))  # (layer, head)
SPLIT_EVENLY = {name: 1 / len(TASKS) for name in TASKS}
COPYING = {"print": 0.6, "pdf": 0.3, "blocks": 0.05, "lines": 0.05}
MIXED = {"print": 0.12, "pdf": 0.28} | {name: 0.6 * share for name, share in SPLIT_EVENLY.items()}
FINAL = {"pdf": 0.2} | {name: 0.8 * share for name, share in SPLIT_EVENLY.items()}
PHASES = ((0, COPYING), (16_000, MIXED), (44_000, FINAL))  # (first example, shares)
RATE = ((0, 1.0), (24_000, 1.0), (44_000, 0.5), (EXAMPLES, 0.0))  # (example, factor), straight lines between
PULL = ((0, 1.0), (44_000, 1.0), (54_000, 0.0))  # weight of the aids of the decoder
VISION_FROM = 8_000  # example from which the ViT learns too
MUON_RATE, ADAMW_RATE = 0.008, 1e-3
END_WEIGHT = 2.0  # of an answer's last token
SAVE_EVERY = 1_000  # examples


def between(knots: tuple[tuple[int, float], ...], at: int) -> float:
    """Value of a piecewise linear schedule; the last value holds on."""
    places, values = zip(*knots, strict=True)
    return float(np.interp(at, places, values))


@dataclass
class Step:
    """A batch and how many examples are done with it."""

    batch: Batch
    examples: int
    last: bool  # of its pool: a run can resume after it


class Pools(Dataset[list[Step]]):
    """Pools of examples, each as batches of like length in random order."""

    def __init__(self, mix: Mix, first: int, seed: int, pad: int) -> None:
        self.mix, self.first, self.seed, self.pad = mix, first, seed, pad

    def __len__(self) -> int:
        return -(-(EXAMPLES - self.first) // POOL)

    def __getitem__(self, index: int) -> list[Step]:
        first = self.first + index * POOL
        pool: list[Example] = []
        for i in range(first, first + POOL):
            shares = next(shares for start, shares in reversed(PHASES) if i >= start)
            pool.append(self.mix.example(i, shares))
        pool.sort(key=lambda example: len(example.ids))
        groups: list[list[Example]] = [[]]
        for example in pool:
            if groups[-1] and (len(groups[-1]) + 1) * len(example.ids) > TOKENS:
                groups.append([])
            groups[-1].append(example)
        random.Random(f"{self.seed}/{first}").shuffle(groups)
        return [
            Step(Batch.collate(group, self.pad), len(group), number == len(groups) - 1)
            for number, group in enumerate(groups)
        ]


class Guide:
    """Reads the inputs of guided layers' attention and scores where the guided heads look."""

    def __init__(self, model: InternVLForConditionalGeneration) -> None:
        self.layers = model.model.language_model.layers
        self.inputs: dict[int, tuple[Tensor, tuple[Tensor, Tensor]]] = {}
        for k in {layer for layer, _ in GUIDED}:
            self.layers[k].self_attn.register_forward_pre_hook(self._keep(k), with_kwargs=True)

    def _keep(self, k: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            self.inputs[k] = (hidden, kwargs["position_embeddings"])

        return hook

    def loss(self, sources: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of the guided heads towards the key positions `sources` ``[batch, length]``.

        -100 leaves a position free. Also returns the share of positions at which the head looks there most.
        """
        rows, columns = (sources >= 0).nonzero(as_tuple=True)
        wanted = sources[rows, columns]
        future = torch.arange(sources.shape[1])[None] > columns[:, None]
        total, right = torch.zeros(()), torch.zeros(())
        for k, head in GUIDED:
            attention = self.layers[k].self_attn
            hidden, (cos, sin) = self.inputs[k]
            hidden, cos, sin = hidden.float(), cos.float(), sin.float()
            width = attention.head_dim
            part = slice(head * width, (head + 1) * width)
            with torch.autocast("cpu", enabled=False):
                q = F.linear(hidden, attention.q_proj.weight[part], attention.q_proj.bias[part])
                key = F.linear(hidden, attention.k_proj.weight[part], attention.k_proj.bias[part])
                half = width // 2
                q, key = (x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin for x in (q, key))
                scores = torch.stack(
                    [score for i in range(len(q)) for score in (q[i, columns[rows == i]] @ key[i].T)]
                )
                scores = (scores * width**-0.5).masked_fill(future, float("-inf"))
                total = total + F.cross_entropy(scores, wanted)
            right = right + (scores.argmax(-1) == wanted).float().mean()
        return total / len(GUIDED), right / len(GUIDED)


class GuidedTeacher(nn.Module):
    """The teacher in training with its two linear aids."""

    def __init__(self, model: InternVLForConditionalGeneration, head: nn.Linear) -> None:
        super().__init__()
        self.model = model
        self.patch_head = head
        self.slot_head = nn.Linear(model.config.text_config.hidden_size, TOKEN_SLOTS)
        self.guide = Guide(model)

    def read(self, batch: Batch, vision_learns: bool) -> tuple[Tensor, Tensor]:
        """Run the model as InternVL does.

        Returns the features of the ViT ``[tiles, 256, width]`` and the last hidden states ``[batch, length, width]``.
        """
        core = self.model.model
        with torch.set_grad_enabled(vision_learns and torch.is_grad_enabled()):
            pixels = (batch.pixels.float() - MEAN) / STD
            seen = core.vision_tower(pixel_values=pixels).last_hidden_state[:, 1:]
        side = int(seen.shape[1] ** 0.5)
        grid = core.pixel_shuffle(seen.reshape(len(seen), side, side, -1), scale_factor=0.5)
        visual = core.multi_modal_projector(grid.reshape(len(seen), -1, grid.shape[-1]))
        embedded = core.get_input_embeddings()(batch.ids)
        place = batch.ids == self.model.config.image_token_id
        embedded = embedded.masked_scatter(place[..., None], visual.to(embedded.dtype))
        return seen, core.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state

    def losses(self, batch: Batch, examples: int) -> dict[str, Tensor]:
        """Losses and shares by name; ``loss`` is what is minimised."""
        vision_learns = examples >= VISION_FROM
        pull = between(PULL, examples)
        seen, hidden = self.read(batch, vision_learns)
        target = F.pad(batch.labels[:, 1:], (0, 1), value=-100)
        rows, columns = (target >= 0).nonzero(as_tuple=True)
        logits = self.model.lm_head(hidden[rows, columns]).float()
        wanted = target[rows, columns]
        each = F.cross_entropy(logits, wanted, reduction="none")
        count = torch.bincount(rows, minlength=len(target)).clamp(min=1).float()
        weight = count[rows].rsqrt()  # a long answer counts for more than a short one, not by its length
        weight = torch.where(
            wanted == self.model.config.text_config.eos_token_id, weight * END_WEIGHT, weight
        )
        found = {"ce": each.mean().detach(), "right": (logits.argmax(-1) == wanted).float().mean()}
        loss = (each * weight).sum() / weight.sum()
        if pull > 0:
            source = F.pad(batch.look[:, 1:], (0, 1), value=-1)
            guided, found["look"] = self.guide.loss(torch.where(source >= 0, source + FIRST_VISUAL, -100))
            slot = F.pad(batch.slot[:, 1:], (0, 1), value=-1)
            at = (slot >= 0).nonzero(as_tuple=True)
            deep = self.guide.inputs[max(layer for layer, _ in GUIDED)][0]
            placed = self.slot_head(deep[at]).float()
            found["slot"] = (placed.argmax(-1) == slot[at]).float().mean()
            loss = loss + pull * (guided + F.cross_entropy(placed, slot[at]))
            found["guide"] = guided.detach()
        if vision_learns:
            read = self.patch_head(seen).unflatten(-1, (SLOTS, CLASSES)).float()
            loss = loss + F.cross_entropy(
                read.flatten(0, 2), batch.patches.flatten(), BLANK_WEIGHT, ignore_index=-100
            )
            found["patches"] = torch.tensor(right_share(read, batch.patches))
        return found | {"loss": loss}


def begin(start: Path, tokenizer: PreTrainedTokenizerFast) -> GuidedTeacher:
    """The teacher with the weights of `start`; the reader of slots is fresh."""
    model = build(tokenizer)
    model.set_attn_implementation("sdpa_float32")
    teacher = GuidedTeacher(model, nn.Linear(WIDTH, SLOTS * CLASSES))
    missing = teacher.load_state_dict(load_file(start), strict=False)
    assert {name.split(".")[0] for name in missing.missing_keys} <= {
        "slot_head"
    } and not missing.unexpected_keys
    return teacher


def steps(loader: DataLoader[list[Step]]) -> Iterator[Step]:
    """Every batch of every pool."""
    for pool in loader:
        yield from pool


def give_back_memory() -> None:
    """Return freed memory to the system: batches of all lengths fragment glibc's heap by some 100 MB a minute."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path, help="folder that packages.py filled")
    parser.add_argument("start", type=Path, help="what start.py wrote")
    parser.add_argument("folder", type=Path, help="output folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and pages (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the model (default: 1)")
    parser.add_argument("--workers", type=int, default=1, help="processes that make pages (default: 1)")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    dtype = autocast_type()
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_path())
    teacher = begin(args.start, tokenizer).train()
    optimizer = Muon(teacher.named_parameters(), MUON_RATE, ADAMW_RATE)
    peaks = [group["lr"] for group in optimizer.param_groups]
    state = args.folder / "state.safetensors"
    examples = load(state, teacher, optimizer) if state.exists() else 0
    mix = Mix(args.packages, tokenizer, args.seed)
    print(
        f"{sum(p.numel() for p in teacher.model.parameters()) / 1e6:.2f} M parameters, {len(mix.families)} families, "
        f"{dtype or torch.float32}, example {examples}",
        flush=True,
    )
    loader = DataLoader(
        Pools(mix, examples, args.seed, tokenizer.pad_token_id),
        batch_size=None,
        num_workers=args.workers,
        prefetch_factor=1 if args.workers else None,
    )
    begun, first, number, saved = time.monotonic(), examples, 0, examples
    shown: dict[str, float] = {}
    with (args.folder / "log.jsonl").open("a") as log:
        for step in steps(loader):
            factor = between(RATE, examples) * min(1.0, (number + 1 + first) / 50)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                found = teacher.losses(step.batch, examples)
            optimizer.zero_grad()
            found.pop("loss").backward()
            nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
            # bfloat16 in Muon's products saves a tenth of a step
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                optimizer.step()
            number, examples = number + 1, examples + step.examples
            for name, value in found.items():
                shown[name] = 0.97 * shown.get(name, float(value)) + 0.03 * float(value)
            if number % 20 == 0:
                speed = (examples - first) / (time.monotonic() - begun)
                figures = {name: round(value, 3) for name, value in shown.items()}
                print(
                    f"example {examples}/{EXAMPLES} {figures} {speed:.2f} examples/s, "
                    f"{(EXAMPLES - examples) / speed / 3600:.1f} h left",
                    flush=True,
                )
                log.write(json.dumps({"example": examples, **figures}) + "\n")
                log.flush()
            if step.last and (examples - saved >= SAVE_EVERY or examples >= EXAMPLES):
                save(state, teacher, optimizer, examples)
                saved = examples
                give_back_memory()
    weights = {name: p.detach().bfloat16().contiguous() for name, p in teacher.model.named_parameters()}
    save_file(weights, args.folder / "model.safetensors")


if __name__ == "__main__":
    main()
