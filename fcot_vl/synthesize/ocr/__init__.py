"""OCR-like training pages with exact answers: documents, layouts, tables, charts, handwriting, scenes and web pages.

`make_sample` returns sample k of a kind. The sample is a function of the seed, the kind, k, the content source and the
installed fonts. It does not depend on the number of samples, shards or processes. `write.synthesize_ocr` writes the
samples.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from fcot_vl.data.dataset import Sample
from fcot_vl.synthesize.ocr import chart, handwriting, layout, scene, table, text, web
from fcot_vl.synthesize.ocr.content import Content, Sources
from fcot_vl.synthesize.ocr.fonts import Language, Role
from fcot_vl.synthesize.ocr.instructions import instruction
from fcot_vl.synthesize.ocr.sheet import Printed

__all__ = ["KINDS", "Kind", "Sources", "make_sample"]


@dataclass(frozen=True)
class Kind:
    """Kind of page: the function that makes it, its language, and the fonts it needs."""

    make: Callable[[random.Random, Content], Printed]
    language: Language
    role: Role = "print"


KINDS: dict[str, Kind] = {
    "text": Kind(text.make, "latin"),
    "text_zh": Kind(text.make, "zh"),
    "layout": Kind(layout.make, "latin"),
    "layout_zh": Kind(layout.make, "zh"),
    "table": Kind(table.make, "latin"),
    "table_zh": Kind(table.make, "zh"),
    "chart": Kind(chart.make, "latin"),
    "chart_zh": Kind(chart.make, "zh"),
    "handwriting": Kind(handwriting.make, "latin", "hand"),
    "handwriting_zh": Kind(handwriting.make, "zh", "hand"),
    "scene": Kind(scene.make, "latin"),
    "scene_zh": Kind(scene.make, "zh"),
    "web": Kind(web.make, "latin"),
    "web_zh": Kind(web.make, "zh"),
}


def make_sample(kind: str, index: int, seed: int = 0, sources: Sources | None = None) -> Sample:
    """Make sample `index` of `kind`.

    Args:
        kind: One of `KINDS`.
        sources: Texts and HTML files of the user. Default: text from Faker.

    Raises:
        ValueError: If the kind is unknown, a library or a font (`FontError`) is missing, or a source lacks content that
            the kind needs.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of page {kind!r}: choose from {', '.join(KINDS)}")
    chosen = KINDS[kind]
    rng = random.Random(f"ocr/{seed}/{kind}/{index}")
    page = chosen.make(rng, Content(rng, chosen.language, sources))
    question = instruction(rng, page.request, chosen.language, page.stamped)
    return Sample(
        id=f"{kind}-{seed}-{index:08d}",
        images=[page.image],
        messages=[
            {"role": "user", "content": question},
            {"role": "assistant", "content": page.answer},
        ],
        task=kind,
        source="synthetic",
    )
