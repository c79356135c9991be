"""Train the embedded teacher from a seed: ViT first, then the whole model, shown where to look.

    python tools/tiny_teacher/train.py runs/teacher

1. *Glyphs.* The ViT learns to read with a dense loss: the characters of every 14x14 patch.
2. *Reading.* The whole model learns MiniDoc's training split: cross-entropy on answer tokens, plus a guide: four
   attention heads (`GUIDED`) are pulled towards the visual token that holds the next character
   (the generator knows it). Without the guide a decoder of this size stays on the letter-frequency plateau for hours.
   The guide fades out before the end.

The mix of tasks, the learning rate and the pull of the guide follow the page count: `PHASES`, `RATE`, `PULL`. A
checkpoint is written every 200 steps; the same command goes on from it. Only MiniDoc's training split is read here, and
the validation split for the printed figures.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import (
    AutoTokenizer,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from fcot_vl.synthesize.minidoc import TASKS, Document, make_document
from fcot_vl.synthesize.minidoc.page import TILE
from fcot_vl.synthesize.minidoc.tasks import ROUND
from fcot_vl.train.muon import Muon

TINY = Path(__file__).resolve().parents[2] / "fcot_vl" / "models" / "tiny"
MIX = {
    "transcribe": 0.28,
    "forms": 0.16,
    "dense_pages": 0.14,
    "table_markdown": 0.08,
    "table_qa": 0.10,
    "chart_qa": 0.08,
    "multiple_choice": 0.08,
    "sums": 0.08,
}
COPYING = {  # more copied characters a second than `MIX`: until the decoder has found out how to look
    "transcribe": 0.50,
    "forms": 0.20,
    "dense_pages": 0.04,
    "table_markdown": 0.10,
    "table_qa": 0.05,
    "chart_qa": 0.04,
    "multiple_choice": 0.04,
    "sums": 0.03,
}
ANSWERING = {  # what has to be looked up or worked out
    "transcribe": 0.22,
    "forms": 0.12,
    "dense_pages": 0.12,
    "table_markdown": 0.06,
    "table_qa": 0.14,
    "chart_qa": 0.10,
    "multiple_choice": 0.12,
    "sums": 0.12,
}
GLYPH_RECORDS = 10_000_000  # the pages of the glyph stage, far from the others
FINISH = {  # as the shortfalls on the validation split asked for
    "transcribe": 0.34,
    "forms": 0.12,
    "dense_pages": 0.14,
    "table_markdown": 0.08,
    "table_qa": 0.10,
    "chart_qa": 0.08,
    "multiple_choice": 0.06,
    "sums": 0.08,
}
LINES = {  # free transcription lost its line most
    "transcribe": 0.48,
    "forms": 0.10,
    "dense_pages": 0.10,
    "table_markdown": 0.06,
    "table_qa": 0.10,
    "chart_qa": 0.05,
    "multiple_choice": 0.06,
    "sums": 0.05,
}
LINES_FROM = 113_152
LINE_START = 5.0  # weight of a line's first character from there on
ENDINGS_FROM = 135_424
ENDING = (  # weight of an answer's last token from there on, where every page weighs the same, short or long
    (ENDINGS_FROM, 10.0),
    (148_000, 10.0),
    (148_001, 3.0),
)
PAGES = 154_000
RATE = (  # (page, factor on the learning rates), straight lines between
    (0, 1.0),
    (32_000, 1.0),
    (32_001, 0.4),
    (66_000, 0.4),
    (66_001, 0.3),
    (90_400, 0.3),
    (113_000, 0.0),
    (LINES_FROM, 0.0),
    (114_200, 0.3),
    (119_000, 0.3),
    (ENDINGS_FROM, 0.0),
    (136_400, 0.25),
    (139_000, 0.25),
    (148_000, 0.0),
    (148_500, 0.15),
    (150_000, 0.15),
    (PAGES, 0.0),
)
PULL = (
    (0, 1.0),
    (101_700, 1.0),
    (107_350, 0.0),
    (LINES_FROM, 0.0),
    (LINES_FROM + 1, 1.0),
    (122_000, 1.0),
    (128_000, 0.0),
)
VISION_DONE = 66_000  # from this page on the ViT is left as it is: it reads 99.9% of characters
PHASES = (  # (first record, its mix)
    (0, MIX),
    (7_168, COPYING),
    (24_576, MIX),
    (42_240, COPYING),
    (50_176, ANSWERING),
    (90_624, FINISH),
    (LINES_FROM, LINES),
    (GLYPH_RECORDS, MIX),
)
BLANK_WEIGHT = torch.cat([torch.tensor([0.2]), torch.ones(95)])  # of the character classes
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
GUIDED = ((1, 0), (2, 0), (2, 1), (3, 0))  # (layer, head)


def build(tokenizer: PreTrainedTokenizerFast) -> InternVLForConditionalGeneration:
    """The teacher with fresh weights."""
    vision = InternVLVisionConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        attention_bias=True,
        image_size=TILE,
        patch_size=14,
        initializer_range=0.07,
        layer_scale_init_value=1.0,
        norm_type="layer_norm",
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        initializer_range=0.07,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=64,
        tie_word_embeddings=False,
    )
    config._attn_implementation = "sdpa"
    model = InternVLForConditionalGeneration(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2 and "embed" not in name:
                p.normal_(0, 0.07 if p.shape[1] < 400 else 0.05)
            elif "lambda" in name:
                p.fill_(1.0)
        model.model.vision_tower.embeddings.position_embeddings.normal_(0, 0.07)
        model.model.vision_tower.embeddings.cls_token.normal_(0, 0.07)
        model.model.vision_tower.embeddings.patch_embeddings.projection.weight.normal_(0, 0.05)
    return model


def tiles_of(document: Document) -> torch.Tensor:
    """Normalised tiles ``[n, 3, 224, 224]``: the grid in raster order, then the thumbnail, as the processor does."""
    page = document.page.pixels(document.rng)
    tiles = [
        page[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE]
        for r in range(document.page.tile_rows)
        for c in range(document.page.tile_columns)
    ]
    if len(tiles) > 1:
        tiles.append(np.asarray(Image.fromarray(page).resize((TILE, TILE), Image.Resampling.BICUBIC)))
    grey = torch.from_numpy(np.stack(tiles)).float().div(255)[:, None]
    return (grey - MEAN) / STD


def glyphs_of(document: Document) -> torch.Tensor:
    """Character codes of the first tile's patches ``[256, 2]`` (left and right glyph; 0 is blank)."""
    target = torch.zeros(16, 16, 2, dtype=torch.long)
    for span in document.page.spans:
        for character, (column, row) in zip(span.text, span.cells, strict=True):
            if column >= 32 or row >= 16:
                continue
            if span.scale == 1:
                target[row, column // 2, column % 2] = ord(character) - 32
            else:
                target[row : row + 2, column // 2, 0] = ord(character) - 32
    return target.view(256, 2)


def token_glyphs_of(document: Document) -> torch.Tensor:
    """Character codes printed on every visual token `[64 * tiles, 8]`, slots in raster order; -1 on the thumbnail."""
    page = document.page
    target = torch.zeros(64 * page.tiles, 8, dtype=torch.long)
    target[64 * page.tile_columns * page.tile_rows :] = -1
    for span in page.spans:
        for character, (column, row) in zip(span.text, span.cells, strict=True):
            target[page.token_of((column, row)), row % 2 * 4 + column % 4] = ord(character) - 32
    return target


@dataclass
class Example:
    """Token ids, answer-masked labels, the visual token each answer token was copied from (-1: none), tiles.

    `slot` is the character's place in that token (raster order of its 4x2 cells); `glyphs` are the characters of every
    visual token, see `token_glyphs_of`.
    """

    ids: list[int]
    labels: list[int]
    look: list[int]
    slot: list[int]
    tiles: torch.Tensor
    glyphs: torch.Tensor
    task: str


FIRST_VISUAL = 4  # visual tokens start after <|im_start|>, user, newline, <img>
PRACTICE = {"chart_qa", "sums"}  # pages followed by a turn of calculations
EQUATIONS = 8


def equations(rng: random.Random) -> list[tuple[str, str]]:
    """Sums of two or three numbers and differences, as `sums` and `_difference` write them: (task, result)."""
    found = []
    for _ in range(EQUATIONS):
        a, b, c = (rng.choice(ROUND[:5]) for _ in range(3))
        high, low = rng.sample(ROUND, 2)
        high, low = max(high, low), min(high, low)
        kinds = ((f"{a}+{b}=", a + b), (f"{a + b}+{c}=", a + b + c), (f"{high}-{low}=", high - low))
        task, result = rng.choice(kinds)
        found.append((task, str(result)))
    return found


def encode(
    document: Document, tokenizer: PreTrainedTokenizerFast, practice: random.Random | None = None
) -> Example:
    """The chat of a document, every turn; `look` counts tokens from the first visual one of the page.

    With `practice`, pages that are calculated on end with a turn of random calculations.
    """
    start, end, newline = (tokenizer.convert_tokens_to_ids(t) for t in ("<|im_start|>", "<|im_end|>", "\n"))
    user, assistant = tokenizer.convert_tokens_to_ids("user"), tokenizer.convert_tokens_to_ids("assistant")
    image, close, context = (tokenizer.convert_tokens_to_ids(t) for t in ("<img>", "</img>", "<IMG_CONTEXT>"))
    first = tokenizer.convert_tokens_to_ids(" ")
    code = {chr(32 + i): first + i for i in range(95)} | {"\n": newline}
    ids, labels, look, slots = [], [], [], []

    def add(token: int, label: bool = False, source: int = -1, slot: int = -1) -> None:
        ids.append(token)
        labels.append(token if label else -100)
        look.append(source)
        slots.append(slot)

    for i, turn in enumerate(document.turns):
        for token in (start, user, newline):
            add(token)
        if i == 0:
            for token in [image] + [context] * (64 * document.page.tiles) + [close, newline]:
                add(token)
        for character in turn.question:
            add(code[character])
        for token in (end, newline, start, assistant, newline):
            add(token)
        for piece in turn.pieces:
            if isinstance(piece, str):
                for character in piece:
                    add(code[character], True)
            else:
                for character, cell in zip(piece.text, piece.cells, strict=True):
                    add(
                        code[character],
                        True,
                        document.page.token_of(cell, piece.scale),
                        cell[1] % 2 * 4 + cell[0] % 4,
                    )
        add(end, True)
        add(newline)
    if practice is not None and document.task in PRACTICE:
        for token in (start, user, newline, *(code[c] for c in "Calculate."), end, newline):
            add(token)
        for token in (start, assistant, newline):
            add(token)
        for task, result in equations(practice):
            for character in task:
                add(code[character])
            for character in result + ",":
                add(code[character], True)
        add(end)
        add(newline)
    return Example(ids, labels, look, slots, tiles_of(document), token_glyphs_of(document), document.task)


def draw(index: int, seed: int) -> Document:
    """Training record `index`, its task drawn from the mix of its phase."""
    rng = random.Random(f"teacher/{seed}/{index}")
    mix = next(mix for first, mix in reversed(PHASES) if index >= first)
    return make_document("train", index, seed, rng.choices(list(mix), list(mix.values()))[0])


def batches(
    start: int, seed: int, tokens: int, tokenizer: PreTrainedTokenizerFast
) -> Iterator[tuple[int | None, list[Example]]]:
    """Endless batches of examples of like length, at most `tokens` padded tokens each; yields (next index, batch)."""
    index = start
    while True:
        practice = random.Random(f"practice/{seed}/{index}")
        pool = [encode(draw(i, seed), tokenizer, practice) for i in range(index, index + 256)]
        index += 256
        pool.sort(key=lambda e: len(e.ids))
        groups: list[list[Example]] = [[]]
        for example in pool:
            if (len(groups[-1]) + 1) * len(example.ids) > tokens and groups[-1]:
                groups.append([])
            groups[-1].append(example)
        random.Random(f"{seed}/{index}").shuffle(groups)
        for i, group in enumerate(groups):
            yield (index if i == len(groups) - 1 else None), group


class Guide:
    """Reads the inputs of the guided layers' attention and scores the guided heads' look at the source token."""

    def __init__(self, model: InternVLForConditionalGeneration) -> None:
        self.layers = model.model.language_model.layers
        self.inputs: dict[int, tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]] = {}
        for k in {layer for layer, _ in GUIDED}:
            self.layers[k].self_attn.register_forward_pre_hook(self._keep(k), with_kwargs=True)

    def _keep(self, k: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            self.inputs[k] = (hidden, kwargs["position_embeddings"])

        return hook

    def loss(self, sources: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy of the guided heads towards key `sources` `[batch, length]` (-100: free), and accuracy."""
        guided = sources >= 0
        length = sources.shape[1]
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        total, right = torch.zeros(()), torch.zeros(())
        for k, head in GUIDED:
            attention = self.layers[k].self_attn
            hidden, (cos, sin) = self.inputs[k]
            width = attention.head_dim
            part = slice(head * width, (head + 1) * width)
            q = F.linear(hidden, attention.q_proj.weight[part], attention.q_proj.bias[part])
            key = F.linear(hidden, attention.k_proj.weight[part], attention.k_proj.bias[part])
            half = width // 2
            q, key = (x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin for x in (q, key))
            scores = (q @ key.transpose(1, 2) * width**-0.5).masked_fill(future, float("-inf"))
            total = total + F.cross_entropy(scores.flatten(0, 1), sources.flatten())
            right = right + (scores.argmax(-1) == sources)[guided].float().mean()
        return total / len(GUIDED), right / len(GUIDED)


def collate(
    batch: list[Example], pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right-padded ids, labels, look, slot `[batch, length]` and all tiles `[n, 3, 224, 224]`."""
    length = max(len(e.ids) for e in batch)
    ids = torch.full((len(batch), length), pad)
    labels, look, slot = torch.full_like(ids, -100), torch.full_like(ids, -1), torch.full_like(ids, -1)
    for i, e in enumerate(batch):
        for padded, values in ((ids, e.ids), (labels, e.labels), (look, e.look), (slot, e.slot)):
            padded[i, : len(values)] = torch.tensor(values)
    return ids, labels, look, slot, torch.cat([e.tiles for e in batch])


def learn_glyphs(model: InternVLForConditionalGeneration, pages: int, seed: int) -> float:
    """Stage 1: the ViT reads the characters of every patch; returns the accuracy on the last pages."""
    tower = model.model.vision_tower
    head = nn.Linear(128, 2 * 96)
    chain = nn.ModuleDict({"tower": tower, "glyph_head": head})
    optimizer = Muon(chain.named_parameters(), 0.02, 3e-3)
    begun, right = time.time(), 0.0
    for step in range(pages // 16):
        documents = [draw(GLYPH_RECORDS + step * 16 + i, seed) for i in range(16)]
        documents = [d for d in documents if d.task != "dense_pages"]
        tiles = torch.cat([tiles_of(d)[:1] for d in documents])
        target = torch.stack([glyphs_of(d) for d in documents])
        features = tower(pixel_values=tiles).last_hidden_state[:, 1:]
        logits = head(features).view(*target.shape, 96)
        loss = F.cross_entropy(logits.flatten(0, 2), target.flatten(), BLANK_WEIGHT)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("peak", group["lr"]) * min(
                1.0, step / 20, (pages // 16 - step) / (pages // 64)
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        printed = target > 0
        right = 0.95 * right + 0.05 * (logits.argmax(-1) == target)[printed].float().mean().item()
        if step % 25 == 0:
            print(
                f"glyphs step {step} loss {loss.item():.3f} read {right:.3f} {time.time() - begun:.0f} s",
                flush=True,
            )
    return right


@torch.no_grad()
def validate(model: InternVLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Teacher-forced share of right answer characters per task, and of wholly right first answers, validation split."""
    model.eval()
    figures: dict[str, float] = {}
    for task in TASKS:
        examples = [encode(make_document("validation", i, 0, task), tokenizer) for i in range(24)]
        right = total = whole = answers = 0
        for k in range(0, len(examples), 6):
            ids, labels, _, _, tiles = collate(examples[k : k + 6], tokenizer.pad_token_id)
            logits = model(input_ids=ids, pixel_values=tiles).logits[:, :-1]
            target = labels[:, 1:]
            hit = (logits.argmax(-1) == target) | (target < 0)
            right += int((hit & (target >= 0)).sum())
            total += int((target >= 0).sum())
            for row in range(len(ids)):
                edges = torch.cat([torch.tensor([False]), target[row] >= 0, torch.tensor([False])])
                starts = (edges[1:] & ~edges[:-1]).nonzero().flatten().tolist()
                ends = (~edges[1:] & edges[:-1]).nonzero().flatten().tolist()
                for a, b in zip(starts, ends, strict=True):
                    whole += bool(hit[row, a:b].all())
                    answers += 1
        figures[task] = round(right / total, 4)
        figures[task + "_whole"] = round(whole / answers, 4)
    model.train()
    return figures


def tokens_of_page(answers: torch.Tensor, length: int) -> torch.Tensor:
    """For every flat answer position, how many answer positions its row of `length` has."""
    _, count = torch.unique_consecutive(answers // length, return_counts=True)
    return count.repeat_interleave(count).float()


def between(knots: tuple[tuple[int, float], ...], page: int) -> float:
    """The value of a piecewise linear schedule at `page`; the last value goes on."""
    at, values = zip(*knots, strict=True)
    return float(np.interp(page, at, values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--glyph-pages", type=int, default=6_000)
    parser.add_argument("--tokens", type=int, default=6_000, help="padded tokens a batch")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    model = build(tokenizer)
    model.train()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    saved = args.folder / "state.pt"
    optimizer = Muon(model.named_parameters(), args.muon_lr, args.adam_lr)
    aids = nn.ModuleDict(
        {"characters": nn.Linear(256, 8 * 96), "slot": nn.Linear(256, 8)}
    )  # thrown away at the end
    aids_optimizer = torch.optim.AdamW(aids.parameters(), 2e-3, weight_decay=0.0)
    state: dict[str, Any] = {}
    step = pages = index = kept = 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for group in optimizer.param_groups:
            group["peak"] = args.muon_lr if group["muon"] else args.adam_lr
        step, pages, index = state["step"], state["pages"], state["index"]
        print(f"going on from step {step}, {pages} pages", flush=True)
    else:
        learn_glyphs(model, args.glyph_pages, args.seed)
    if "aids" in state:
        aids.load_state_dict(state["aids"])
        aids_optimizer.load_state_dict(state["aids_optimizer"])
    newline, end = tokenizer.convert_tokens_to_ids(["\n", "<|im_end|>"])
    guide = Guide(model)
    tower = model.model.vision_tower
    begun, first_page = time.time(), pages
    shown = {
        "ce": 4.0,
        "guide": 5.0,
        "right": 0.0,
        "look": 0.0,
        "characters": 0.0,
        "slot": 0.0,
        "line": 0.0,
        "end": 0.0,
    }
    log = (args.folder / "log.jsonl").open("a")
    for next_index, batch in batches(index, args.seed, args.tokens, tokenizer):
        rate = min(1.0, (step + 1) / 50) * between(RATE, pages)
        pull = between(PULL, pages)
        tower.requires_grad_(pages < VISION_DONE)
        ids, labels, look, slot, tiles = collate(batch, tokenizer.pad_token_id)
        output = model.model(input_ids=ids, pixel_values=tiles, use_cache=False)
        hidden = output.last_hidden_state
        shifted = F.pad(labels[:, 1:], (0, 1), value=-100).flatten()
        answers = (shifted >= 0).nonzero().squeeze(1)  # flat positions whose next token is an answer's
        logits = model.lm_head(hidden.flatten(0, 1).index_select(0, answers))
        target = shifted[answers]
        each = F.cross_entropy(logits, target, reduction="none")
        ce = each.mean()
        loss = ce
        if pages >= LINES_FROM:
            begins = ids.flatten()[answers] == newline
            weight = torch.where(begins, LINE_START, 1.0)
            if pages >= ENDINGS_FROM:
                ends = target == end
                weight = torch.where(ends, between(ENDING, pages), weight) / tokens_of_page(
                    answers, ids.shape[1]
                )
                weight = weight / weight.mean()
                shown["end"] += 0.02 * (
                    (logits.argmax(-1) == target)[ends].float().mean().item() - shown["end"]
                )
            loss = (each * weight).mean()
            shown["line"] += 0.02 * (
                (logits.argmax(-1) == target)[begins].float().mean().nan_to_num(1.0).item() - shown["line"]
            )
        if pull > 0:
            source = F.pad(look[:, 1:], (0, 1), value=-1)
            guided, hit = guide.loss(torch.where(source >= 0, source + FIRST_VISUAL, -100))
            glyphs = torch.cat([e.glyphs for e in batch])
            read = (
                aids["characters"](output.image_hidden_states.flatten(0, 1)).view(-1, 8, 96).transpose(1, 2)
            )
            spelled = F.cross_entropy(read, glyphs, BLANK_WEIGHT, ignore_index=-1)
            printed = glyphs > 0
            spelling = (read.argmax(1) == glyphs)[printed].float().mean()
            shown["characters"] += 0.02 * (spelling.item() - shown["characters"])
            next_slot = F.pad(slot[:, 1:], (0, 1), value=-1).flatten()
            copied = (next_slot >= 0).nonzero().squeeze(1)
            place = aids["slot"](guide.inputs[3][0].flatten(0, 1).index_select(0, copied))
            wanted = next_slot[copied]
            placed = F.cross_entropy(place, wanted)
            shown["slot"] += 0.02 * ((place.argmax(-1) == wanted).float().mean().item() - shown["slot"])
            loss = loss + pull * (guided + 0.5 * spelled + placed)
            shown["guide"] += 0.02 * (guided.item() - shown["guide"])
            shown["look"] += 0.02 * (hit.item() - shown["look"])
        optimizer.zero_grad()
        aids_optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("peak", group["lr"]) * rate
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        aids_optimizer.step()
        step, pages = step + 1, pages + len(batch)
        shown["ce"] += 0.02 * (ce.item() - shown["ce"])
        shown["right"] += 0.02 * ((logits.argmax(-1) == target).float().mean().item() - shown["right"])
        if step % 50 == 0:
            speed = (pages - first_page) / (time.time() - begun)
            figures = {k: round(v, 3) for k, v in shown.items()}
            print(f"step {step} pages {pages} {speed:.1f} pages/s rate {rate:.2f} {figures}", flush=True)
            log.write(
                json.dumps({"step": step, "pages": pages, "seconds": time.time() - begun, **figures}) + "\n"
            )
            log.flush()
        if step % 500 == 0:
            print("validation", validate(model, tokenizer), flush=True)
        finished = pages >= PAGES
        if next_index is not None:
            index = next_index
            if finished or step // 200 != kept:
                kept = step // 200
                torch.save(
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "aids": aids.state_dict(),
                        "aids_optimizer": aids_optimizer.state_dict(),
                        "step": step,
                        "pages": pages,
                        "index": index,
                    },
                    saved.with_suffix(".partial"),
                )
                saved.with_suffix(".partial").replace(saved)
            if finished:
                break
    print("validation", validate(model, tokenizer), flush=True)


if __name__ == "__main__":
    main()
