"""Effects of a scanner, a copier or a phone on a page: skew, blur, shadow, noise, low-quality JPEG, stamps.

This is the last step before a page becomes a sample. The size never changes, and nothing is cut off a page with margins
of a twentieth of its size. Images stay grey as long as possible, because colour takes three times as long.
"""

from __future__ import annotations

import io
import math
import random
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from fcot_vl.synthesize.ocr.fonts import Language, face, families, truetype

_TILE = 2048
_STAMPS: dict[Language, tuple[str, ...]] = {
    "latin": ("APPROVED", "RECEIVED", "PAID", "COPY", "ORIGINAL", "CONFIDENTIAL"),
    "zh": ("财务专用章", "合同专用章", "行政管理部", "发票专用章", "档案管理处"),
}
_INKS = ((200, 30, 40), (40, 60, 160), (30, 110, 60))


def scan(rng: random.Random, page: Image.Image, language: Language) -> tuple[Image.Image, bool]:
    """Scan a grey page, and return it with True if it has a stamp (then it is RGB).

    A third of the pages stays clean. The size is that of `page`.
    """
    if rng.random() < 0.33:
        return page, False
    image = page
    paper = rng.randint(225, 255)
    if paper < 250:
        dark = rng.randint(0, 40)
        image = image.point([round(dark + value * (paper - dark) / 255) for value in range(256)])
    if rng.random() < 0.35:
        image = skew(image, rng.uniform(-1.6, 1.6), image.getpixel((0, 0)))
    if rng.random() < 0.3:
        image = ImageChops.multiply(image, shadow(rng, image.size))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.3, 0.8)))
    if rng.random() < 0.5:
        image = ImageChops.add(image, noise(rng, image.size), 1, -128)
    stamped = rng.random() < 0.15
    if stamped:
        image = stamp(rng, image, language)
    if rng.random() < 0.25:
        image = jpeg(image, rng.randint(25, 60))
    return image, stamped


def skew(image: Image.Image, degrees: float, fill: Any) -> Image.Image:
    """Rotate an image around its centre without changing its size. New areas at the edges are filled with `fill`."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    x, y = image.width / 2, image.height / 2
    turned = (cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y)
    return image.transform(
        image.size, Image.Transform.AFFINE, turned, Image.Resampling.BILINEAR, fillcolor=fill
    )


def shadow(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    """Draw uneven light as a grey image: 255 for full light, with a fold or soft shadow, never darker than 150."""
    across, down = 6, 8
    along = rng.uniform(0, 2 * math.pi)
    deep, edge, width = rng.uniform(20, 95), rng.uniform(-0.6, 0.6), rng.uniform(0.15, 0.8)
    small = Image.new("L", (across, down))
    for i in range(across * down):
        x, y = i % across / (across - 1) * 2 - 1, i // across / (down - 1) * 2 - 1
        far = (x * math.cos(along) + y * math.sin(along) - edge) / width
        small.putpixel((i % across, i // across), 255 - round(deep / (1 + math.exp(-4 * far))))
    return small.resize(size, Image.Resampling.BILINEAR)


@lru_cache(maxsize=1)
def _grain() -> list[Image.Image]:
    """Return noise tiles around 128 in three strengths, the same in every process. The last one is paper grain."""
    values = np.random.default_rng(0).standard_normal((_TILE, _TILE)).astype(np.float32)
    tiles = [Image.fromarray(np.clip(128 + s * values, 0, 255).astype(np.uint8)) for s in (3, 7, 24)]
    tiles[-1] = tiles[-1].filter(ImageFilter.GaussianBlur(1.2))
    return tiles


def noise(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    """Return a crop of a grain tile, around 128. Larger pages repeat the tile."""
    tile = rng.choice(_grain())
    width, height = size
    if width > _TILE or height > _TILE:
        large = Image.new("L", size)
        for x in range(0, width, _TILE):
            for y in range(0, height, _TILE):
                large.paste(tile, (x, y))
        return large
    x, y = rng.randint(0, _TILE - width), rng.randint(0, _TILE - height)
    return tile.crop((x, y, x + width, y + height))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Encode an image as JPEG and decode it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    back = Image.open(buffer)
    back.load()
    return back


def stamp(rng: random.Random, image: Image.Image, language: Language) -> Image.Image:
    """Press a seal on the page, and return it as RGB. The print below shows through the ink."""
    seal = _seal(rng.choice(_STAMPS[language]), language)
    mask = seal.rotate(rng.uniform(-25, 25), Image.Resampling.BILINEAR, expand=True)
    mask.thumbnail((image.width // 3, image.height // 3))
    mask = mask.point([round(value * rng.uniform(0.55, 0.8)) for value in range(256)])
    x = rng.randint(0, image.width - mask.width)
    y = rng.randint(image.height // 2, max(image.height // 2, image.height - mask.height))
    colour = Image.new("RGB", mask.size, (255, 255, 255))
    colour.paste(rng.choice(_INKS[: 1 if language == "zh" else 3]), (0, 0), mask)
    page = image.convert("RGB")
    below = page.crop((x, y, x + mask.width, y + mask.height))
    page.paste(ImageChops.multiply(below, colour), (x, y))
    return page


@lru_cache(maxsize=16)
def _seal(text: str, language: Language) -> Image.Image:
    """Draw the ink of a seal in grey: round with a star for Chinese, a framed word otherwise."""
    where = face(families("print", language)[0], bold=True)
    if language != "zh":
        font = truetype(where.path, where.index, 54)
        wide = round(font.getlength(text)) + 60
        mask = Image.new("L", (wide, 110), 0)
        draw = ImageDraw.Draw(mask)
        draw.rounded_rectangle((4, 4, wide - 5, 105), 12, outline=255, width=6)
        draw.text((wide / 2, 55), text, 255, font, anchor="mm")
        return mask
    side = 300
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    draw.ellipse((4, 4, side - 5, side - 5), outline=255, width=8)
    points = [
        (
            side / 2 + radius * math.sin(k * math.pi / 5),
            side / 2 - radius * math.cos(k * math.pi / 5),
        )
        for k in range(10)
        for radius in [48 if k % 2 == 0 else 19]
    ]
    draw.polygon(points, fill=255)
    font = truetype(where.path, where.index, 46)
    for i, character in enumerate(text):
        angle = (i - (len(text) - 1) / 2) * 40
        glyph = Image.new("L", (side, side), 0)
        ImageDraw.Draw(glyph).text((side / 2, 42), character, 255, font, anchor="mm")
        mask = ImageChops.lighter(mask, glyph.rotate(-angle, Image.Resampling.BILINEAR))
    return mask
