"""Letters, invoices and tables of the second MiniDoc: repeatable, complete, inside the page, as dense as meant."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest

from fcot_vl.synthesize.documents.kinds.registry import KINDS
from fcot_vl.synthesize.documents.page import Page
from fcot_vl.synthesize.documents.tiling import tile
from fcot_vl.synthesize.documents.words import SPLITS

SEEDS = range(25)
DENSITY = {"letter": (0.8, 1.8), "invoice": (0.6, 1.4), "table": (0.4, 0.9)}
by_kind = pytest.mark.parametrize("kind", DENSITY)


@cache
def pages(kind: str) -> list[Page]:
    """Pages of a kind, of every split."""
    return [KINDS[kind](random.Random(f"{split} {seed}"), split, None) for split in SPLITS for seed in SEEDS]


@by_kind
def test_a_seed_gives_one_page(kind):
    for split, page in zip(SPLITS, pages(kind)[:: len(SEEDS)], strict=True):
        again = KINDS[kind](random.Random(f"{split} 0"), split, None)
        assert again.canvas.image.tobytes() == page.canvas.image.tobytes()
        assert [line.text for line in again.lines] == [line.text for line in page.lines]
        assert (again.canvas.points == page.canvas.points).all()


@by_kind
def test_lines_hold_every_printed_character_once(kind):
    for page in pages(kind):
        text = "".join(line.text for line in page.lines)
        assert all(" " <= character <= "~" for character in text)
        assert sum(not character.isspace() for character in text) == page.canvas.printed
        ids = [i for line in page.lines for i in line.ids if i >= 0]
        assert sorted(ids) == list(range(page.canvas.printed))
        assert all(page.blocks)


@by_kind
def test_characters_are_inside_the_page(kind):
    for page in pages(kind):
        assert (page.canvas.points > 2).all()
        assert (page.canvas.points < np.array(page.canvas.size) - 2).all()


@by_kind
def test_fields_are_on_the_page_and_differ(kind):
    for page in pages(kind):
        texts = [mark.text for mark in page.fields.values()]
        assert all(text.strip() == text and any(text in line.text for line in page.lines) for text in texts)
        assert len(set(texts)) == len(texts)
        assert len(texts) >= 2 or kind == "table"


@by_kind
def test_density_is_as_meant(kind):
    density = np.mean([page.canvas.printed / tile(page.canvas.size).visual_tokens for page in pages(kind)])
    low, high = DENSITY[kind]
    assert low < density < high


def test_an_invoice_adds_up():
    checked = 0
    for page in pages("invoice"):
        if "tax" in page.fields:
            subtotal, tax, total = (
                float(page.fields[name].text.split(" ")[-1].lstrip("$").replace(",", ""))
                for name in ("subtotal", "tax", "total")
            )
            assert total == pytest.approx(subtotal + tax)
            checked += 1
    assert checked > 5


def test_tables_have_one_answer_each():
    for page in pages("table"):
        headers, *rows = page.table
        assert 3 <= len(rows) <= 22
        assert 2 <= len(headers) <= 7
        assert all(len(row) == len(headers) for row in rows)
        assert len({mark.text for mark in headers}) == len(headers)
        assert len({row[0].text for row in rows}) == len(rows)
        assert page.subject in page.lines[0].text
        for column in range(1, len(headers)):
            cells = [row[column].text for row in rows]
            if all(cell.replace(".", "").isdigit() and len(cell) < 8 for cell in cells):
                assert len(set(cells)) == len(cells)
