"""Functions that print a page, by kind of document."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from fcot_vl.synthesize.documents.kinds import (
    charts,
    directories,
    forms,
    infographics,
    invoices,
    receipts,
    signs,
    slides,
    tables,
)
from fcot_vl.synthesize.documents.kinds.letters import print_letter
from fcot_vl.synthesize.documents.kinds.reports import print_report
from fcot_vl.synthesize.documents.kinds.text_sheet import new_text_sheet
from fcot_vl.synthesize.documents.page import Page
from fcot_vl.synthesize.documents.typefaces import Family
from fcot_vl.synthesize.documents.words import Split

Make = Callable[[random.Random, Split, Sequence[Family] | None], Page]


def _letter_or_report(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Print a letter, a memo or a report."""
    sheet, budget = new_text_sheet("letter", rng, split, families)
    if rng.random() < 0.58:
        print_letter(sheet, budget)
    else:
        print_report(sheet, budget)
    return sheet.finish()


def _invoice_or_form(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Print an invoice or a form."""
    return (invoices if rng.random() < 0.5 else forms).make(rng, split, families)


def _slide_or_infographic(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Page:
    """Print a slide or an infographic."""
    return (slides if rng.random() < 0.5 else infographics).make(rng, split, families)


KINDS: dict[str, Make] = {
    "receipt": receipts.make,
    "letter": _letter_or_report,
    "invoice": _invoice_or_form,
    "table": tables.make,
    "chart": charts.make,
    "slide": _slide_or_infographic,
    "sign": signs.make,
    "directory": directories.make,
}
