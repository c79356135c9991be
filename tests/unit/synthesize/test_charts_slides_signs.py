"""Charts, slides and signs: every page is the same from the same seed, and holds what it says it holds."""

import random

import pytest

from fcot_vl.synthesize.documents.kinds.registry import KINDS
from fcot_vl.synthesize.documents.page import NOWHERE, Page
from fcot_vl.synthesize.documents.tiling import tile
from fcot_vl.synthesize.documents.words import SPLITS, Split

SEEDS = range(25)
DENSITY = (("chart", 0.1, 0.5), ("slide", 0.1, 0.6), ("sign", 0.03, 0.4))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("kind", "least", "most"), DENSITY)
def test_pages_hold_what_they_say(kind: str, least: float, most: float, split: Split) -> None:
    densities = []
    for seed in SEEDS:
        page: Page = KINDS[kind](random.Random(seed), split, None)
        if seed < 3:
            again = KINDS[kind](random.Random(seed), split, None)
            assert again.canvas.image.tobytes() == page.canvas.image.tobytes()
            assert [line.text for line in again.lines] == [line.text for line in page.lines]
        lines = [line.text for line in page.lines]
        for mark in (*page.fields.values(), *page.values.values()):
            assert mark.text and any(mark.text in line for line in lines)
            assert len(mark.text) == len(mark.ids)
        ids = [i for line in page.lines for i in line.ids if i != NOWHERE]
        assert sorted(ids) == list(range(page.canvas.printed))
        assert all(32 <= ord(character) < 127 for line in lines for character in line)
        points = page.canvas.points
        assert (points >= 0).all() and (points < page.canvas.size).all()
        shown = [mark.text for mark in page.values.values()]
        assert len({*shown}) == len(shown)
        densities.append(page.canvas.printed / tile(page.canvas.size).visual_tokens)
    assert least <= sum(densities) / len(densities) <= most


def test_charts_name_their_subject_and_print_every_value() -> None:
    tens = 0
    for seed in SEEDS:
        page = KINDS["chart"](random.Random(seed), "train", None)
        text = "\n".join(line.text for line in page.lines)
        assert page.subject in text
        assert 3 <= len(page.values) <= 9
        assert all(label in text for label in page.values)
        shown = [mark.text for mark in page.values.values()]
        tens += all(value in {str(ten) for ten in range(10, 100, 10)} for value in shown)
    assert tens >= 5


def test_lines_of_a_page_do_not_touch() -> None:
    for seed in SEEDS[:6]:
        for kind, _, _ in DENSITY:
            page = KINDS[kind](random.Random(seed), "test", None)
            places = [tuple(place) for place in page.canvas.points]
            assert len({*places}) == len(places)
