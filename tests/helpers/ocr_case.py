"""Content that tests of OCR-like pages share."""

from __future__ import annotations

import random

import pytest

from fcot_vl.synthesize.ocr import KINDS, Sources, fonts
from fcot_vl.synthesize.ocr.content import Content
from fcot_vl.synthesize.ocr.fonts import families
from fcot_vl.synthesize.ocr.render import renderer


def content(index: int, language: fonts.Language = "latin", sources: Sources | None = None) -> Content:
    return Content(random.Random(index), language, sources)


def need(kind: str) -> None:
    """Skip where this machine has not the fonts or the renderer of `kind`."""
    try:
        families(KINDS[kind].role, KINDS[kind].language)
        if kind.startswith("web"):
            fonts.system_families(KINDS[kind].language)
            renderer()
    except ValueError as missing:
        pytest.skip(str(missing))
