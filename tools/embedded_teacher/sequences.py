"""Training sequences of the embedded teacher's stage 2: token ids, and where on the page each answer token was read.

Three sources: dense print on a few tiles (many answer characters per visual token: where reading is learned fastest),
blocks of real PDFs, and the pages of MiniDoc 2, all in the typefaces of `typefaces.py`. Example k depends on the seed
and k only.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pdf_pages import read_blocks
from PIL import Image
from tiles import IGNORED, SLOTS, TILE, Sources, patch_targets
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from fcot_vl.synthesize.documents.content import Content
from fcot_vl.synthesize.documents.generate import make_document
from fcot_vl.synthesize.documents.page import Canvas, Mark
from fcot_vl.synthesize.documents.tasks import TASKS, Turn, box_around, stacked
from fcot_vl.synthesize.documents.tiling import TOKEN, TOKENS_A_TILE, Tiling, tile
from fcot_vl.synthesize.documents.typefaces import Family
from fcot_vl.synthesize.ocr.capture import Points, tilt, wear
from fcot_vl.synthesize.ocr.fonts import Face

FIRST_VISUAL = 4  # visual tokens begin after <|im_start|>, user, newline, <img>
TOKEN_SLOTS = 8  # characters of one visual token that an answer token's place is counted among
LONGEST = 420  # characters of a transcription


@dataclass
class Example:
    """One conversation.

    Attributes:
        ids, labels: token ids, and the same where they are answers (-100 elsewhere).
        look: visual token that shows the character, counted from the first one; -1 where there is none.
        slot: place of that character among those of its visual token, in reading order; -1 where there is none.
        tiles: uint8 ``[n, 224, 224, 3]``, thumbnail last.
        patches: characters of every patch ``[n, 256, SLOTS]``, `IGNORED` on the thumbnail.
    """

    ids: list[int]
    labels: list[int]
    look: list[int]
    slot: list[int]
    tiles: NDArray[np.uint8]
    patches: NDArray[np.int64]
    source: str


@dataclass(frozen=True)
class AnsweredImage:
    """An image, its characters and their places, and the turns about it."""

    image: Image.Image
    letters: str
    points: Points
    turns: Sequence[Turn]
    source: str


def families(sources: Sources) -> list[Family]:
    """The typefaces as regular and bold pairs, one list entry per regular face."""
    found = []
    for package in sources.faces:
        for face in package:
            lower = face.path.lower()
            if any(word in lower for word in ("bold", "bd.", "heavy", "black")):
                continue
            bold = [f for f in package if f.family == face.family and "bold" in f.path.lower()]
            found.append(Family(face.family, face, bold[0] if bold else face))
    return found


def dense_print(rng: random.Random, sources: Sources) -> AnsweredImage:
    """A few lines of words in one typeface on one to four tiles, transcribed."""
    columns, rows = rng.choice(((1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (3, 2)))
    face: Face = rng.choice(rng.choices(sources.faces, sources.weights)[0])
    family = Family(face.family, face, face)
    canvas = Canvas((columns * TILE, rows * TILE), (rng.randint(225, 255),) * 3)
    content = Content(rng, sources.split)
    size = rng.choice((rng.uniform(11, 17), rng.uniform(13, 24), rng.uniform(20, 48)))
    kind = family.type(size)
    y, step = rng.uniform(2, 20), kind.size * rng.uniform(1.1, 1.7)
    left = rng.uniform(3, 0.3 * canvas.size[0])
    lines: list[Mark] = []
    capitals = rng.random() < 0.2
    while y + step < canvas.size[1] and sum(len(line.text) for line in lines) < LONGEST:
        wanted = rng.choice((content.sentence, content.title, content.company, content.date, content.code))()
        text = wanted.upper() if capitals else wanted
        fitting = kind.wrap(text, canvas.size[0] - left - 4)[:1]
        if fitting:
            lines.append(canvas.write(fitting[0], kind, left, y + kind.size))
            y += step * rng.choice((1, 1, 1, 2))
        y += step * 0.1
    if not lines:
        return dense_print(rng, sources)
    image, points = canvas.image.convert("L"), canvas.points
    if rng.random() < 0.4:
        image, points = tilt(rng, image, points, 1.5, 0.004, 240)
    image = wear(rng, image, 0.7)
    return AnsweredImage(image.convert("RGB"), canvas.letters, points, [_transcription(rng, lines)], "print")


def pdf_block(rng: random.Random, sources: Sources) -> AnsweredImage:
    """Up to 12 lines of a block of a real PDF, cut out and transcribed."""
    while True:
        path, count = rng.choices(sources.pdfs, sources.pdf_weights)[0]
        image, blocks, points = read_blocks(path, rng.randrange(count), rng.uniform(85, 190))
        blocks = [block for block in blocks if sum(len(line.text) for line in block) > 12]
        if not blocks or max(image.size) > 4000:
            continue
        block = rng.choice(blocks)
        most = rng.randint(1, 12)
        first = rng.randrange(max(1, len(block) - most + 1))
        lines = block[first : first + most]
        while sum(len(line.text) for line in lines) > LONGEST:
            lines = lines[:-1]
        if not lines:
            continue
        box = box_around(lines, points, image.size, rng.uniform(0.5, 1.2), rng.uniform(0.65, 0.9))
        if box[2] - box[0] < TOKEN or box[3] - box[1] < TOKEN // 2:  # a block that stands outside of its page
            continue
        piece = image.crop(box)
        moved = points - box[:2]
        if rng.random() < 0.4:
            piece, moved = tilt(rng, piece, moved, 0.8, 0.003, 255)
        piece = wear(rng, piece, 0.6)
        letters = [" "] * len(points)
        for line in (line for block in blocks for line in block):
            for letter, i in zip(line.text, line.ids, strict=True):
                if i >= 0:
                    letters[i] = letter
        known = [letter if letter != " " else "\0" for letter in letters]
        return AnsweredImage(piece.convert("RGB"), "".join(known), moved, [_transcription(rng, lines)], "pdf")


def _transcription(rng: random.Random, lines: list[Mark]) -> Turn:
    text = stacked(lines)
    question = rng.choice(("Read the text.", "Read the text.", "What does it say?", "Transcribe the text."))
    return Turn(question, text, text.text)


def minidoc(rng: random.Random, index: int, seed: int, task: str, fonts: Sequence[Family]) -> AnsweredImage:
    """A page of MiniDoc 2's training split."""
    document = make_document("train", index, seed, task, fonts)
    return AnsweredImage(document.image, document.letters, document.points, document.turns, task)


def cut_tiles(image: Image.Image) -> tuple[Tiling, NDArray[np.uint8]]:
    """The tiles of an image as InternVL's processor makes them: uint8 ``[n, 224, 224, 3]``, thumbnail last."""
    tiling = tile(image.size)
    if tiling.size != image.size:
        paper = Image.new("RGB", tiling.size, (255, 255, 255))
        paper.paste(image)
        image = paper
    whole = np.asarray(image.resize((tiling.columns * TILE, tiling.rows * TILE), Image.Resampling.BICUBIC))
    tiles = [
        whole[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE]
        for r in range(tiling.rows)
        for c in range(tiling.columns)
    ]
    if len(tiles) > 1:
        tiles.append(np.asarray(image.resize((TILE, TILE), Image.Resampling.BICUBIC)))
    return tiling, np.stack(tiles)


def slots_of(points: Points, looks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each character among those of its visual token, in reading order, at most `TOKEN_SLOTS` - 1."""
    order = np.zeros(len(points), np.int64)
    members: dict[int, list[int]] = {}
    for i, token in enumerate(looks):
        members.setdefault(int(token), []).append(i)
    for those in members.values():
        those.sort(key=lambda i: (round(points[i, 1] / 10), points[i, 0]))
        for place, i in enumerate(those):
            order[i] = min(place, TOKEN_SLOTS - 1)
    return order


class Encoder:
    """Turns an image with its turns into an `Example`, in the chat format of the embedded teacher."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        one = tokenizer.convert_tokens_to_ids
        self.start, self.end, self.newline = (one(t) for t in ("<|im_start|>", "<|im_end|>", "\n"))
        self.user, self.assistant = one("user"), one("assistant")
        self.image, self.close, self.context = (one(t) for t in ("<img>", "</img>", "<IMG_CONTEXT>"))
        blank = one(" ")
        self.code = {chr(32 + i): blank + i for i in range(95)} | {"\n": self.newline}

    def encode(self, answered: AnsweredImage) -> Example:
        """The conversation of `answered`; raises KeyError for a character that is not ASCII."""
        tiling, tiles = cut_tiles(answered.image)
        grid = tiling.columns * tiling.rows
        scaled = answered.points * [tiling.columns * TILE, tiling.rows * TILE] / np.array(tiling.size)
        looks = tiling.tokens_of(answered.points)
        slots = slots_of(scaled, looks)
        ids: list[int] = []
        labels: list[int] = []
        look: list[int] = []
        slot: list[int] = []

        def add(tokens: Sequence[int], answer: bool = False) -> None:
            ids.extend(tokens)
            labels.extend(tokens if answer else [-100] * len(tokens))
            look.extend([-1] * len(tokens))
            slot.extend([-1] * len(tokens))

        for number, turn in enumerate(answered.turns):
            add([self.start, self.user, self.newline])
            if number == 0:
                add([self.image, *[self.context] * (TOKENS_A_TILE * tiling.tiles), self.close, self.newline])
            add([self.code[character] for character in turn.question])
            add([self.end, self.newline, self.start, self.assistant, self.newline])
            for character, i in zip(turn.answer.text, turn.answer.ids, strict=True):
                add([self.code[character]], answer=True)
                if i >= 0 and looks[i] >= 0:
                    look[-1], slot[-1] = int(looks[i]), int(slots[i])
            add([self.end], answer=True)
            add([self.newline])
        patches = np.full((tiling.tiles, (TILE // TOKEN * 2) ** 2, SLOTS), IGNORED, np.int64)
        for k in range(grid):
            corner = (k % tiling.columns * TILE, k // tiling.columns * TILE)
            patches[k] = patch_targets(answered.letters, scaled, *corner)
        return Example(ids, labels, look, slot, tiles, patches, answered.source)


class Mix:
    """Examples by number, drawn from the sources in given shares.

    Args:
        folder: what `packages.py` filled.
    """

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.sources = Sources.find(folder)
        self.families = families(self.sources)
        self.encoder = Encoder(tokenizer)
        self.seed = seed

    def example(self, index: int, shares: dict[str, float]) -> Example:
        """Example `index`; `shares` are the weights of ``print``, ``pdf`` and of MiniDoc's tasks."""
        rng = random.Random(f"pages/{self.seed}/{index}")
        source = rng.choices(list(shares), list(shares.values()))[0]
        if source == "print":
            answered = dense_print(rng, self.sources)
        elif source == "pdf":
            answered = pdf_block(rng, self.sources)
        else:
            assert source in TASKS, source
            answered = minidoc(rng, index, self.seed, source, self.families)
        return self.encoder.encode(answered)


@dataclass
class Batch:
    """Examples of like length, padded on the right: ``[batch, length]`` each, and all tiles one after another."""

    ids: Tensor
    labels: Tensor
    look: Tensor
    slot: Tensor
    pixels: Tensor
    patches: Tensor

    @classmethod
    def collate(cls, examples: Sequence[Example], pad: int) -> Batch:
        """Pad and join."""
        length = max(len(example.ids) for example in examples)

        def padded(rows: list[list[int]], value: int) -> Tensor:
            return torch.tensor([row + [value] * (length - len(row)) for row in rows])

        tiles = np.concatenate([example.tiles for example in examples])
        return cls(
            padded([e.ids for e in examples], pad),
            padded([e.labels for e in examples], -100),
            padded([e.look for e in examples], -1),
            padded([e.slot for e in examples], -1),
            torch.from_numpy(tiles).permute(0, 3, 1, 2),
            torch.from_numpy(np.concatenate([example.patches for example in examples])),
        )
