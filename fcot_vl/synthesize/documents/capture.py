"""Capture of a page: as the file it is, as a scan, or as a photograph.

The image keeps the size of the page, and the points of the characters move with it.
"""

from __future__ import annotations

import random
from typing import Literal

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from fcot_vl.synthesize.ocr.capture import Points, corners_of, tilt, warp, wear
from fcot_vl.synthesize.ocr.scan import jpeg, noise, shadow

How = Literal["clean", "scan", "photo"]


def capture(rng: random.Random, image: Image.Image, points: Points, how: How) -> tuple[Image.Image, Points]:
    """Return the RGB page `image` as a file, a scan or a photograph, and the new places of its characters."""
    if how == "clean":
        return image, points
    if how == "scan":
        return _scan(rng, image, points)
    return _photo(rng, image, points)


def _scan(rng: random.Random, image: Image.Image, points: Points) -> tuple[Image.Image, Points]:
    """Scan the page: a little skewed, mostly grey, worn."""
    page = image.convert("L") if rng.random() < 0.7 else image
    if rng.random() < 0.6:
        paper = page.getpixel((1, 1))
        page, points = tilt(rng, page, points, 1.4, 0.0, paper)
    return wear(rng, page, 0.8).convert("RGB"), points


def _photo(rng: random.Random, image: Image.Image, points: Points) -> tuple[Image.Image, Points]:
    """Photograph the page lying on a surface: seen aslant, lit unevenly, a little blurred."""
    width, height = image.size
    around = 0.06
    bend = 0.025
    seen = []
    for x, y in corners_of((1.0, 1.0)):
        inset = rng.uniform(0.01, around)
        seen.append(
            (
                (inset + x * (1 - 2 * inset) + rng.uniform(-bend, bend) * 0.5) * width,
                (inset + y * (1 - 2 * inset) + rng.uniform(-bend, bend) * 0.5) * height,
            )
        )
    page = image.convert("RGBA")
    page.putalpha(255)
    page, points = warp(page, points, seen, image.size, (0, 0, 0, 0))
    picture = ground(rng, image.size)
    fall = page.getchannel("A").filter(ImageFilter.BoxBlur(max(2, min(image.size) // 60)))
    dark = Image.new("RGB", image.size, (0, 0, 0))
    picture = Image.composite(Image.blend(picture, dark, 0.35), picture, ImageChops.offset(fall, 4, 6))
    picture.paste(page.convert("RGB"), (0, 0), page.getchannel("A"))
    light = shadow(rng, image.size)
    warm = []
    for _ in range(3):
        share = rng.uniform(0.92, 1.0)
        warm.append(light.point([round(value * share) for value in range(256)]))
    picture = ImageChops.multiply(picture, Image.merge("RGB", warm))
    if rng.random() < 0.6:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8)))
    if rng.random() < 0.8:
        grain = noise(rng, image.size)
        picture = ImageChops.add(picture, Image.merge("RGB", (grain, grain, grain)), 1, -128)
    if rng.random() < 0.6:
        picture = jpeg(picture, rng.randint(35, 80))
    return picture, points


def ground(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    """Draw the ground that a page lies on: a table top or cloth, RGB, with soft spots or a grain."""
    base = np.array([rng.randint(40, 200)] * 3, np.float32) + [rng.randint(-25, 25) for _ in range(3)]
    values = np.random.default_rng(rng.getrandbits(32))
    across = rng.choice((4, 12, 40))
    small = values.normal(0, rng.uniform(4, 16), (rng.choice((4, 12, 3)), across)).astype(np.float32)
    cloud = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(base + cloud[..., None], 0, 255).astype(np.uint8))
