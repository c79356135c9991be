"""OCR-like training pages: documents, layouts, tables, charts, handwriting, scenes and web pages with exact answers.

`make_sample` gives record k of a kind, a function of seed, kind, k, the content source and the installed fonts, never
of how many records, shards or processes there are. `write.synthesize_ocr` writes them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from fcot_vl.data.sample import Sample
from fcot_vl.data.synthesize.ocr import chart, handwriting, layout, scene, table, text, web
from fcot_vl.data.synthesize.ocr.content import Content, Sources
from fcot_vl.data.synthesize.ocr.fonts import Language, Role
from fcot_vl.data.synthesize.ocr.instructions import instruction
from fcot_vl.data.synthesize.ocr.sheet import Printed

__all__ = ["KINDS", "Kind", "Sources", "make_sample"]


@dataclass(frozen=True)
class Kind:
    """A kind of page: how it is made, the language on it, and the fonts it needs."""

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
    """Record `index` of `kind`.

    Args:
        kind: one of `KINDS`.
        sources: the user's texts and HTML files; Faker's where there are none.

    Raises:
        ValueError: unknown kind, a missing library, a font (`FontError`), or a source without what the kind needs.
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
