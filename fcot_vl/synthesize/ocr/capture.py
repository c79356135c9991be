"""Capture effects on printed pages: rotation, perspective, blur, fading, uneven light, JPEG compression.

These are the same changes as in `scan`, for pages with known character positions. Each geometric change takes the image
and the points of the characters, `[n, 2]` (x, y in pixels), and returns both, so that the points stay on the print.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from fcot_vl.synthesize.ocr.scan import jpeg, noise, shadow

Points = NDArray[np.float64]
Corners = list[tuple[float, float]]


def perspective(seen: Corners, source: Corners) -> list[float]:
    """Compute Pillow's eight coefficients that map four points of the output to four points of the source."""
    rows, values = [], []
    for (x, y), (u, v) in zip(seen, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    solved: list[float] = np.linalg.solve(np.array(rows, float), np.array(values, float)).tolist()
    return solved


def corners_of(size: tuple[float, float]) -> Corners:
    """Return the corners of an image of `size` (width, height): top left, top right, bottom right, bottom left."""
    width, height = size
    return [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]


def warp(
    image: Image.Image, points: Points, seen: Corners, size: tuple[int, int], fill: Any
) -> tuple[Image.Image, Points]:
    """Project `image` into a picture of `size` so that its corners (see `corners_of`) are at `seen`."""
    numbers = perspective(seen, corners_of(image.size))
    picture = image.transform(
        size, Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BICUBIC, fillcolor=fill
    )
    forward = np.linalg.inv(np.array([*numbers, 1.0]).reshape(3, 3))
    moved = np.c_[points, np.ones(len(points))] @ forward.T
    return picture, moved[:, :2] / moved[:, 2:]


def tilt(
    rng: random.Random, image: Image.Image, points: Points, degrees: float, bend: float, fill: Any
) -> tuple[Image.Image, Points]:
    """Rotate by up to `degrees` and move each corner by up to `bend` of the size. The size does not change."""
    width, height = image.size
    angle = np.radians(rng.uniform(-degrees, degrees))
    middle = np.array([width / 2, height / 2])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    seen = (np.array(corners_of(image.size)) - middle) @ turn.T + middle
    seen += [[rng.uniform(-bend, bend) * width, rng.uniform(-bend, bend) * height] for _ in range(4)]
    return warp(image, points, [(float(x), float(y)) for x, y in seen], image.size, fill)


def rescale(image: Image.Image, points: Points, size: tuple[int, int]) -> tuple[Image.Image, Points]:
    """Resize to `size` as InternVL's processor does (bicubic)."""
    scale = np.array(size) / np.array(image.size)
    return image.resize(size, Image.Resampling.BICUBIC), points * scale


def wear(rng: random.Random, image: Image.Image, strength: float = 1.0) -> Image.Image:
    """Degrade a grey or RGB image without moving anything on it.

    Each of these happens by chance: downscaling and upscaling, thin or fat print, faded ink on grey paper, shadow,
    blur, noise, JPEG compression.

    Args:
        strength: Factor on the probabilities; 0 for no change.
    """
    size = image.size
    if rng.random() < 0.2 * strength:
        factor = rng.uniform(0.55, 0.9)
        small = (max(8, round(size[0] * factor)), max(8, round(size[1] * factor)))
        image = image.resize(small, Image.Resampling.BILINEAR).resize(size, Image.Resampling.BICUBIC)
    if rng.random() < 0.12 * strength:
        changed = image.filter(rng.choice((ImageFilter.MinFilter(3), ImageFilter.MaxFilter(3))))
        image = Image.blend(image, changed, rng.uniform(0.1, 0.5))
    if rng.random() < 0.7 * strength:
        paper = rng.randint(150, 255)
        ink = rng.randint(0, max(0, min(120, paper - 90)))
        fade = [round(ink + value * (paper - ink) / 255) for value in range(256)]
        image = image.point(fade * len(image.getbands()))
    if rng.random() < 0.25 * strength:
        image = ImageChops.multiply(image, shadow(rng, size).convert(image.mode))
    if rng.random() < 0.35 * strength:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.1)))
    if rng.random() < 0.5 * strength:
        image = ImageChops.add(image, noise(rng, size).convert(image.mode), 1, -128)
    if rng.random() < 0.3 * strength:
        image = jpeg(image, rng.randint(20, 75))
    return image
