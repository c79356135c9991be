"""Samples of MiniDoc 2: captured pages with questions, generated from a seed.

`make_document` returns record k of a part and a task, a function of seed, part, task and k only. Splits share no
made-up word, and half of the test pages have typefaces that no other split has. `make_sample` returns the record as
the stages read it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from fcot_vl.data.dataset import Sample
from fcot_vl.synthesize.documents.capture import How, capture
from fcot_vl.synthesize.documents.kinds.registry import KINDS
from fcot_vl.synthesize.documents.tasks import STRESS, TASKS, Box, Turn
from fcot_vl.synthesize.documents.tiling import Tiling, tile
from fcot_vl.synthesize.documents.typefaces import Family
from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.capture import Points

Part = Literal["train", "validation", "test", "stress"]
PARTS: tuple[Part, ...] = ("train", "validation", "test", "stress")

_HOW: dict[str, tuple[float, float, float]] = {  # shares of clean files, scans, photographs
    "receipt": (0.15, 0.5, 0.35),
    "letter": (0.35, 0.45, 0.2),
    "invoice": (0.35, 0.45, 0.2),
    "table": (0.45, 0.4, 0.15),
    "chart": (0.6, 0.25, 0.15),
    "slide": (0.6, 0.15, 0.25),
    "sign": (0.2, 0.1, 0.7),
    "directory": (0.5, 0.5, 0.0),
}
_WAYS: tuple[How, ...] = ("clean", "scan", "photo")
_AROUND = 40  # pixels about a cut-out that are captured with it


@dataclass(frozen=True)
class Document:
    """An image of a page, and questions about it.

    Attributes:
        points: middle (x, y) in pixels of every printed character of the page, ``[n, 2]``; `Mark.ids` are its rows.
        letters: the n characters.
        tiling: the tiles that InternVL's processor cuts the image into.
        density: printed characters in the image per visual token of the uncompressed teacher.
    """

    id: str
    task: str
    kind: str
    image: Image.Image
    points: Points
    letters: str
    tiling: Tiling
    density: float
    turns: list[Turn]


def make_document(
    part: Part, index: int, seed: int = 0, task: str | None = None, families: Sequence[Family] | None = None
) -> Document:
    """Make record `index` of `part`. Its tasks take turns unless `task` names one.

    Args:
        part: ``train``, ``validation``, ``test``, or ``stress``: small print with the words and typefaces of the tests.
        task: one of `TASKS`, or ``dense``, the task of the stress pages.
        families: typefaces to print with in place of the benchmark's own.

    Raises ValueError for an unknown part or task.
    """
    if part not in PARTS:
        raise ValueError(f"unknown MiniDoc split {part!r}; choose from {', '.join(PARTS)}")
    split: Split = "test" if part == "stress" else part
    own = list(STRESS if part == "stress" else TASKS)
    task = own[index % len(own)] if task is None else task
    chosen = (TASKS | STRESS).get(task)
    if chosen is None:
        raise ValueError(f"unknown MiniDoc task {task!r}; choose from {', '.join(TASKS | STRESS)}")
    rng = random.Random(f"minidoc2/{seed}/{part}/{task}/{index}")
    while True:  # a page that lacks what the task asks for is drawn again
        kind = rng.choice(chosen.kinds)
        page = KINDS[kind](rng, split, families)
        if (asked := chosen.ask(rng, split, page)) is not None:
            break
    how = rng.choices(_WAYS, _HOW[kind])[0]
    image, points = page.canvas.image, page.canvas.points
    if asked.box is None:
        image, points = capture(rng, image, points, how)
    else:
        image, points = _cut_out(rng, image, points, asked.box, how)
    width, height = image.size
    x, y = points.T
    inside = int(((x >= 0) & (y >= 0) & (x < width) & (y < height)).sum())
    tiling = tile(image.size)
    density = inside / tiling.visual_tokens
    name = f"{part}-{seed}-{index:06d}-{task}"
    return Document(name, task, kind, image, points, page.canvas.letters, tiling, density, asked.turns)


def _cut_out(
    rng: random.Random, image: Image.Image, points: Points, box: Box, how: How
) -> tuple[Image.Image, Points]:
    """Capture the surroundings of `box`, and cut the box out of the captured image."""
    left, top = max(0, box[0] - _AROUND), max(0, box[1] - _AROUND)
    around = image.crop((left, top, min(image.width, box[2] + _AROUND), min(image.height, box[3] + _AROUND)))
    picture, moved = capture(rng, around, points - [left, top], "clean" if how == "clean" else "scan")
    inner = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return picture.crop(inner), moved - inner[:2]


def make_sample(part: Part, index: int, seed: int = 0, task: str | None = None) -> Sample:
    """Make record `index` of `part` as a `Sample`: all turns for training, the first one otherwise."""
    document = make_document(part, index, seed, task)
    turns = document.turns if part == "train" else document.turns[:1]
    messages = []
    for turn in turns:
        messages += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer.text},
        ]
    return Sample(
        id=document.id,
        images=[document.image],
        messages=messages,
        task=document.task,
        source="minidoc",
        answers=[turns[0].gold],
        metric=(TASKS | STRESS)[document.task].metric,
        density=document.density,
        tiles=document.tiling.tiles,
    )
