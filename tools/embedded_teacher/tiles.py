"""Tiles with the characters on every patch: what the embedded teacher's ViT learns to read (stage 1).

A tile is 224 x 224 grey pixels; its target is, for each 14-pixel patch, up to `SLOTS` characters, namely those whose
ink has its middle there, in reading order. Half of the tiles are cut from pages of real PDFs, half are printed here in
many typefaces and sizes; all go through the changes of `capture`. Batch `index` depends on the seed and the index only.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pdf_pages import UNREADABLE, find_pdfs, page_count, read_page
from PIL import Image, ImageDraw, ImageOps
from typefaces import folders, typefaces

from fcot_vl.synthesize.documents.words import Split, code, word
from fcot_vl.synthesize.ocr.capture import Points, rescale, tilt, wear
from fcot_vl.synthesize.ocr.fonts import Face
from fcot_vl.synthesize.ocr.typeset import Type

TILE, PATCH, SLOTS, CLASSES = (
    224,
    14,
    4,
    96,
)  # class 0 is "no character"; the others are printable ASCII from "!"
SIDE = TILE // PATCH
IGNORED = -100
Print = tuple[Image.Image, str, Points]  # grey image, its characters without spaces, their middles


def patch_targets(letters: str, points: Points, left: int, top: int) -> NDArray[np.int64]:
    """Classes ``[256, SLOTS]`` of the tile whose corner is at (`left`, `top`); `IGNORED` where print is unreadable."""
    target = np.zeros((SIDE * SIDE, SLOTS), np.int64)
    if not letters:
        return target
    column = np.floor((points[:, 0] - left) / PATCH).astype(int)
    row = np.floor((points[:, 1] - top) / PATCH).astype(int)
    inside = (column >= 0) & (column < SIDE) & (row >= 0) & (row < SIDE)
    filled: dict[int, list[int]] = {}
    for i in np.flatnonzero(inside):
        filled.setdefault(int(row[i] * SIDE + column[i]), []).append(int(i))
    for patch, those in filled.items():
        if any(letters[i] == UNREADABLE for i in those) or len(those) > SLOTS:
            target[patch] = IGNORED
            continue
        high = np.ptp(points[those, 1]) > 6  # two lines in one patch: the upper one first
        those.sort(key=lambda i: (round(points[i, 1] / 8) if high else 0, points[i, 0]))
        target[patch, : len(those)] = [ord(letters[i]) - 32 for i in those]
    return target


def cover_targets(letters: str, points: Points, size: float, left: int, top: int) -> NDArray[np.int64]:
    """Class ``[256]`` of the character that each patch of a tile is part of, 0 for none, in type of `size` pixels."""
    middles = (np.arange(SIDE) + 0.5) * PATCH
    x, y = np.meshgrid(middles + left, middles + top)
    across = (x.reshape(-1, 1) - points[:, 0]) / (0.33 * size)
    down = (y.reshape(-1, 1) - points[:, 1]) / (0.5 * size)
    distance = across**2 + down**2
    classes = np.array([ord(letter) - 32 for letter in letters], np.int64)
    return np.where(distance.min(1) < 1, classes[distance.argmin(1)], 0)


@dataclass(frozen=True)
class Sources:
    """Everything tiles are made from: typefaces by package, PDFs with their numbers of pages."""

    faces: list[list[Face]]
    weights: list[float]
    pdfs: list[tuple[Path, int]]
    pdf_weights: list[float]
    split: Split

    @classmethod
    def find(cls, folder: Path, split: Split = "train") -> Sources:
        """Read the folder that `packages.py` filled."""
        faces = typefaces(folders(folder / "fonts"), validation=split == "validation")
        pages = [(path, page_count(path)) for path in find_pdfs(folder / f"pdf-{split}")]
        pdfs = [(path, count) for path, count in pages if count]
        # a long manual counts for more than a leaflet, but not by its length
        return cls(faces, [len(f) ** 0.5 for f in faces], pdfs, [min(n, 60) ** 0.5 for _, n in pdfs], split)


def _words(rng: random.Random, split: Split, capitals: bool) -> str:
    """One word, number, price, date or string of signs."""
    draw = rng.random()
    if draw < 0.62:
        text = word(rng, split)
        style = rng.random()
        text = text.upper() if capitals or style < 0.12 else text.capitalize() if style < 0.35 else text
        return text + (rng.choice(",.:;!?)'-") if rng.random() < 0.2 else "")
    if draw < 0.74:
        return str(rng.randrange(10 ** rng.randint(1, 7)))
    if draw < 0.82:
        return f"{rng.choice(['', '$', '', 'RM'])}{rng.randrange(2000):,}.{rng.randrange(100):02d}"
    if draw < 0.87:
        d, m, y = rng.randint(1, 31), rng.randint(1, 12), rng.randint(1980, 2030)
        return rng.choice(
            (f"{d:02d}/{m:02d}/{y}", f"{y}-{m:02d}-{d:02d}", f"{d}.{m}.{y}", f"{d:02d}:{m:02d}")
        )
    if draw < 0.93:
        return rng.choice((code(rng, split), f"({word(rng, split)})", f"#{rng.randrange(9999)}", "="))
    return "".join(chr(rng.randint(33, 126)) for _ in range(rng.randint(1, 6)))


def _size(rng: random.Random, hardness: float) -> int:
    """Type size in pixels of the tile: small print is common, headlines are not; middle sizes alone at hardness 0."""
    if rng.random() > hardness:
        return rng.randint(15, 28)
    low, high = rng.choices(((9, 16), (14, 28), (24, 60)), (0.5, 0.37, 0.13))[0]
    return round(low * (high / low) ** rng.random())


def printed(
    rng: random.Random,
    sources: Sources,
    size: tuple[int, int],
    letters: int | None = None,
    hardness: float = 1.0,
) -> Print:
    """A grey canvas of `size` filled with blocks of print in one or several typefaces.

    Args:
        letters: size of the type; drawn per block where it is not given.
    """
    width, height = size
    image = Image.new("L", size, 255)
    pen = ImageDraw.Draw(image)
    text: list[str] = []
    points: list[tuple[float, float]] = []
    y = rng.uniform(-4, 10)
    while y < height:
        face = rng.choice(rng.choices(sources.faces, sources.weights)[0])
        kind = Type(face, letters or _size(rng, hardness))
        step = kind.size * rng.uniform(1.0, 1.7)
        capitals = rng.random() < 0.25
        gap = rng.choice((1, 1, 1, rng.randint(2, 8)))  # wide gaps as between the columns of a table
        ruled = rng.random() < 0.12
        for _ in range(rng.randint(1, max(1, min(9, round(110 / step))))):
            if y > height:
                break
            x = rng.choice((rng.uniform(-20, 10), rng.uniform(0, width * 0.6)))
            end = width * rng.choice((1.0, 1.0, rng.uniform(0.3, 1.0)))
            words: list[str] = []
            used = x
            while used < end:
                words.append(_words(rng, sources.split, capitals))
                used += kind.width(words[-1]) + kind.space * gap
            line = (" " * gap).join(words)
            baseline = y + kind.size
            kind.draw(image, x, baseline, line)
            for letter, across, down in kind.centres(line, x, baseline):
                text.append(letter)
                points.append((across, down))
            if ruled:
                pen.line((x, baseline + step * 0.3, used, baseline + step * 0.3), fill=rng.randint(0, 120))
            y += step
        y += rng.choice((0.0, step * 0.5, rng.uniform(0, 40)))
        if rng.random() < 0.1:
            across = rng.uniform(0, width)
            pen.line((across, 0, across, height), fill=rng.randint(0, 150), width=rng.randint(1, 2))
    return image, "".join(text), np.array(points, np.float64).reshape(-1, 2)


GRIDS = ((1, 1), (2, 1), (3, 1))  # columns, rows
SMALLEST_LARGE = 26  # pixels of the tile


def enlarged(
    rng: random.Random, sources: Sources, largest: float
) -> tuple[Print, list[tuple[int, int]], float]:
    """Print blown up to whole tiles, as the processor shows large print and small images that were cut out of a page.

    Args:
        largest: Largest type, in pixels of the tiles.

    Returns the print, the corners of the tiles to use, and the size of the type in pixels of the tiles.
    """
    size = SMALLEST_LARGE * (largest / SMALLEST_LARGE) ** rng.random()
    columns, rows = rng.choice(GRIDS)
    original = rng.randint(11, round(min(34, size)))
    shrink = original / size
    area = (max(12, round(columns * TILE * shrink)), max(12, round(rows * TILE * shrink)))
    image, text, points = printed(rng, sources, area, original)
    image = wear(rng, image, 0.7)
    image, points = rescale(image, points, (columns * TILE, rows * TILE))
    corners = [(c * TILE, r * TILE) for c in range(columns) for r in range(rows)]
    return (image, text, points), rng.sample(corners, min(4, len(corners))), size


def pdf_print(rng: random.Random, sources: Sources, hardness: float) -> Print:
    """A page of a real PDF at 75 (at hardness 0: 125) to 240 dpi; pages with hardly any print are drawn again."""
    low = 125 - 50 * hardness
    while True:
        path, count = rng.choices(sources.pdfs, sources.pdf_weights)[0]
        dpi = low * (240 / low) ** (rng.random() ** 1.3)
        image, text, points = read_page(path, rng.randrange(count), dpi)
        if len(text) > 150 and text.count(UNREADABLE) < 0.1 * len(text) and max(image.size) < 4000:
            return image, text, points


def _crops(rng: random.Random, image: Image.Image, points: Points, count: int) -> list[tuple[int, int]]:
    """Corners of `count` tiles, each about some character, inside the image."""
    width, height = image.size
    found = []
    for _ in range(count):
        x, y = points[rng.randrange(len(points))]
        found.append(
            (
                round(min(max(0.0, x - rng.uniform(20, 200)), max(0, width - TILE))),
                round(min(max(0.0, y - rng.uniform(20, 200)), max(0, height - TILE))),
            )
        )
    return found


class Tiles:
    """Tiles gathered so far: pixels ``[224, 224]`` uint8, targets ``[256, SLOTS]`` and ``[256]``."""

    def __init__(self) -> None:
        self.pixels: list[NDArray[np.uint8]] = []
        self.targets: list[NDArray[np.int64]] = []
        self.covers: list[NDArray[np.int64]] = []


def make_batch(
    sources: Sources,
    seed: int,
    index: int,
    size: int,
    hardness: float = 1.0,
    large: tuple[float, float] = (0.0, 0.0),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make batch `index`.

    Returns pixels ``[size, 3, 224, 224]`` uint8, targets ``[size, 256, SLOTS]``, and for tiles of print blown up the
    character that each patch is part of, ``[size, 256]``, `IGNORED` on other tiles.

    Args:
        hardness: from 0, middle sizes with little wear, to 1, everything.
        large: share of tiles of print blown up, and the size of its largest type in pixels of the tile.
    """
    rng = random.Random(f"tiles/{seed}/{index}")
    share, largest = large
    tiles = Tiles()
    while len(tiles.pixels) < size:
        draw = rng.random()
        size_of_type = 0.0
        if draw < 0.55 * (1 - share):
            image, text, points = pdf_print(rng, sources, hardness)
            corners = _crops(rng, image, points, 4)
        elif draw < 1 - share:
            image, text, points = printed(rng, sources, (2 * TILE, 2 * TILE), hardness=hardness)
            corners = [(0, 0), (TILE, 0), (0, TILE), (TILE, TILE)]
        else:
            (image, text, points), corners, size_of_type = enlarged(rng, sources, largest)
        if rng.random() < 0.45 * hardness:
            degrees, bend = rng.choice(((1.0, 0.004), (2.5, 0.01), (5.0, 0.03)))
            around = [(left, top, left + TILE, top + TILE) for left, top in corners]
            box = (min(b[0] for b in around), min(b[1] for b in around))
            end = (max(b[2] for b in around), max(b[3] for b in around))
            if (end[0] - box[0]) * (end[1] - box[1]) <= 1_500_000:
                image, points = tilt(rng, image.crop((*box, *end)), points - box, degrees, bend, 255)
                corners = [(left - box[0], top - box[1]) for left, top in corners]
        for left, top in corners:
            piece = wear(rng, image.crop((left, top, left + TILE, top + TILE)), 0.3 + 0.7 * hardness)
            if rng.random() < 0.05:
                piece = ImageOps.invert(piece)
            tiles.pixels.append(np.asarray(piece))
            tiles.targets.append(patch_targets(text, points, left, top))
            covered = size_of_type and text
            tiles.covers.append(
                cover_targets(text, points, size_of_type, left, top)
                if covered
                else np.full(SIDE * SIDE, IGNORED, np.int64)
            )
    grey = torch.from_numpy(np.stack(tiles.pixels[:size]))[:, None].float()
    tint = torch.tensor([[rng.uniform(0.82, 1.0) for _ in range(3)] if rng.random() < 0.3 else [1.0] * 3
                         for _ in range(size)])  # fmt: skip
    pixels = (grey * tint[:, :, None, None]).to(torch.uint8)
    targets, covers = (torch.from_numpy(np.stack(those[:size])) for those in (tiles.targets, tiles.covers))
    return pixels, targets, covers
