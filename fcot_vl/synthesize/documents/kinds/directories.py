"""Directories: small print in columns, as in a catalog or an index, for the stress part."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fcot_vl.synthesize.documents.content import Content
from fcot_vl.synthesize.documents.page import Canvas, Page
from fcot_vl.synthesize.documents.sheet import size_of
from fcot_vl.synthesize.documents.typefaces import Family, pick
from fcot_vl.synthesize.documents.vocabulary import ITEMS
from fcot_vl.synthesize.documents.words import Split


def make(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Print a page of 1 to 7 tiles with 2 to 8 characters per visual token. Some entries have a name to ask for."""
    columns, rows = rng.choice(((1, 1), (1, 2), (2, 1), (2, 3), (3, 2), (1, 1)))
    scale = rng.uniform(1.0, 1.3)
    canvas = Canvas(size_of(columns, rows, scale), (rng.randint(235, 255),) * 3)
    content = Content(rng, split)
    page = Page("directory", canvas)
    kind = pick(rng, split, families).type(rng.uniform(10, 18) * scale)
    step = kind.size * rng.uniform(1.1, 1.5)
    across = max(1, round(columns * rng.uniform(0.9, 1.6)))
    margin, gutter = 4 * scale, 8 * scale
    wide = (canvas.size[0] - 2 * margin - gutter * (across - 1)) / across
    names = rng.sample(ITEMS, len(ITEMS))
    for column in range(across):
        left, y = margin + column * (wide + gutter), margin
        page.blocks.append([])
        while y + step < canvas.size[1] - margin:
            if names and rng.random() < 0.35:
                name = names.pop()
                value = rng.choice((content.code, content.word, content.date, content.city))()
                text = f"{name}: {value}"
                if kind.width(text) <= wide:
                    mark = canvas.write(text, kind, left, y + kind.size)
                    page.fields[name] = mark[len(name) + 2 :]
                    page.blocks[-1].append(mark)
                    y += step
                continue
            fitting = kind.wrap(" ".join(content.words(6, 20)), wide)[:1]
            if fitting:
                page.blocks[-1].append(canvas.write(fitting[0], kind, left, y + kind.size))
            y += step
    page.blocks = [block for block in page.blocks if block]
    return page
