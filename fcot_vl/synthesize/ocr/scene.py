"""Scene text: signs and labels on textured backgrounds in perspective, with uneven light and a little blur.

The backgrounds are drawn, not photographed: stripes, bricks, boards, spots, grain and light. The answer is the text,
line by line.
"""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from fcot_vl.synthesize.ocr.capture import corners_of, perspective
from fcot_vl.synthesize.ocr.content import Content
from fcot_vl.synthesize.ocr.scan import jpeg, noise, shadow
from fcot_vl.synthesize.ocr.sheet import Printed, types
from fcot_vl.synthesize.ocr.typeset import Type

Colour = tuple[int, int, int]


def make(rng: random.Random, content: Content) -> Printed:
    """Make a sign with one to five lines."""
    size = (rng.randint(560, 1100), rng.randint(480, 900))
    sign, lines = _sign(rng, content, round(size[0] * rng.uniform(0.6, 0.85)), round(size[1] * 0.75))
    image = _ground(rng, size)
    _hang(rng, image, sign)
    light = shadow(rng, size)
    image = ImageChops.multiply(image, Image.merge("RGB", (light, light, light)))
    if rng.random() < 0.6:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.2, 1.0)))
    grain = noise(rng, size)
    image = ImageChops.add(image, Image.merge("RGB", (grain, grain, grain)), 1, -128)
    if rng.random() < 0.4:
        image = jpeg(image, rng.randint(35, 70))
    return Printed(image, "scene", "\n".join(lines))


def _colour(rng: random.Random, light: bool) -> Colour:
    """Draw a light or dark colour that contrasts with any colour of the other lightness."""
    low, high = (175, 256) if light else (0, 95)
    return (rng.randrange(low, high), rng.randrange(low, high), rng.randrange(low, high))


def _sign(rng: random.Random, content: Content, width: int, height: int) -> tuple[Image.Image, list[str]]:
    """Draw a board with text as RGBA, cropped to its content, and return it with its lines."""
    language = content.language
    body, bold = types(rng, language, rng.randint(34, 80))
    letters = bold if rng.random() < 0.7 else body
    pad = letters.size
    lines: list[str] = []
    kinds: list[Type] = []
    used = float(pad)
    wanted = rng.randint(1, 4)
    while wanted > 0 or not lines:
        wanted -= 1
        text = rng.choice((lambda: content.words(1, 3), content.company, content.place, content.value))()
        kind = letters if not lines or rng.random() < 0.5 else letters.sized(rng.uniform(0.55, 0.9))
        for line in kind.wrap(text.upper() if rng.random() < 0.3 else text, width - 2 * pad):
            if used + kind.size * 1.3 + pad <= height:
                lines.append(line)
                kinds.append(kind)
                used += kind.size * 1.3
    light = rng.random() < 0.5
    wide = round(max(kind.width(line) for kind, line in zip(kinds, lines, strict=True)) + 2 * pad)
    board = _colour(rng, light)
    ink = Image.new("L", (wide, round(used + pad * 0.6)), 0)
    align = rng.choice((0.0, 0.5))
    y = pad * 0.8
    for kind, line in zip(kinds, lines, strict=True):
        x = pad + (wide - 2 * pad - kind.width(line)) * align
        kind.draw(ink, x, y + kind.size, line, 255)
        y += kind.size * 1.3
    sign = Image.new("RGBA", ink.size, (*board, 255))
    draw = ImageDraw.Draw(sign)
    if rng.random() < 0.5:
        frame = (4, 4, ink.width - 5, ink.height - 5)
        draw.rounded_rectangle(frame, rng.randint(0, 25), outline=(*_colour(rng, not light), 255), width=4)
    if rng.random() < 0.3:  # raised letters: a shadow below
        sign.paste((*(channel * 2 // 3 for channel in board), 255), (3, 3), ink)
    sign.paste((*_colour(rng, not light), 255), (0, 0), ink)
    return sign, lines


def _ground(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    """Draw a textured wall as RGB."""
    width, height = size
    base = np.array(_colour(rng, rng.random() < 0.5), np.float32)
    values = np.random.default_rng(rng.getrandbits(32))
    small = values.normal(0, rng.uniform(5, 30), (rng.randint(3, 24), rng.randint(3, 24))).astype(np.float32)
    cloud = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    wall = np.clip(base + np.asarray(cloud)[..., None], 0, 255).astype(np.uint8)
    image = Image.fromarray(wall)
    draw = ImageDraw.Draw(image)
    pattern = rng.choice(("bricks", "boards", "stripes", "spots", "plain"))
    line = _colour(rng, bool(base.mean() < 128))
    step = rng.randint(24, 70)
    if pattern == "bricks":
        for row, y in enumerate(range(0, height, step)):
            draw.line((0, y, width, y), fill=line, width=3)
            for x in range(-(row % 2) * step, width, 2 * step):
                draw.line((x, y, x, y + step), fill=line, width=3)
    elif pattern == "boards":
        for x in range(0, width, 2 * step):
            draw.line((x, 0, x, height), fill=line, width=2)
    elif pattern == "stripes":
        for x in range(-height, width, step):
            draw.line((x, 0, x + height, height), fill=line, width=step // 4)
    elif pattern == "spots":
        for _ in range(60):
            x, y, r = rng.randrange(width), rng.randrange(height), rng.randint(3, step // 2)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=_colour(rng, rng.random() < 0.5))
    return image.filter(ImageFilter.BoxBlur(1)) if pattern != "plain" else image


def _hang(rng: random.Random, image: Image.Image, sign: Image.Image) -> None:
    """Paste the sign on the background in perspective. All of it stays inside the image."""
    room = 0.92
    factor = min(room * image.width / sign.width, room * image.height / sign.height, 1.0)
    width, height = sign.width * factor, sign.height * factor
    left = rng.uniform(0.04 * image.width, image.width * 0.96 - width)
    top = rng.uniform(0.04 * image.height, image.height * 0.96 - height)
    bend = 0.12
    corners = [
        (left + rng.uniform(0, bend) * width, top + rng.uniform(0, bend) * height),
        (left + width - rng.uniform(0, bend) * width, top + rng.uniform(0, bend) * height),
        (left + width - rng.uniform(0, bend) * width, top + height - rng.uniform(0, bend) * height),
        (left + rng.uniform(0, bend) * width, top + height - rng.uniform(0, bend) * height),
    ]
    seen = sign.transform(
        image.size,
        Image.Transform.PERSPECTIVE,
        perspective(corners, corners_of(sign.size)),
        Image.Resampling.BICUBIC,
    )
    image.paste(seen, (0, 0), seen.getchannel("A"))
