"""MiniDoc 2's core: where characters stand, tiling, capture, questions, splits."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from fcot_vl.models.internvl.image_processing import PaddingImageProcessor
from fcot_vl.synthesize.documents import typefaces
from fcot_vl.synthesize.documents.capture import capture
from fcot_vl.synthesize.documents.generate import PARTS, make_document, make_sample
from fcot_vl.synthesize.documents.page import NOWHERE, Canvas, Mark
from fcot_vl.synthesize.documents.tasks import STRESS, TASKS
from fcot_vl.synthesize.documents.tiling import MAX_ENLARGEMENT, tile
from fcot_vl.synthesize.documents.words import split_of
from fcot_vl.synthesize.ocr.capture import corners_of, tilt, warp


def ink_at(image: Image.Image, x: float, y: float, reach: int = 5) -> int:
    """Darkest grey within `reach` pixels of a point."""
    box = (round(x) - reach, round(y) - reach, round(x) + reach + 1, round(y) + reach + 1)
    return int(np.asarray(image.convert("L").crop(box)).min())


def test_every_character_stands_where_its_ink_is() -> None:
    canvas = Canvas((400, 120))
    mark = canvas.write("Total: 12.50", typefaces.known()[0].type(24), 20, 60)
    assert mark.text == "Total: 12.50"
    assert [i for i in mark.ids if i != NOWHERE] == list(range(canvas.printed))
    assert mark.ids[6] == NOWHERE
    assert canvas.letters == "Total:12.50"
    for x, y in canvas.points:
        assert ink_at(canvas.image, x, y) < 100
    assert np.all(np.diff(canvas.points[:, 0]) > 0)


def test_a_part_of_a_mark_keeps_its_places() -> None:
    mark = Mark("ab c", (0, 1, NOWHERE, 2), 12)
    assert mark[3:] == Mark("c", (2,), 12)
    assert mark[:1] + Mark.plain("-") == Mark("a-", (0, NOWHERE), 12)


def test_points_move_with_the_image() -> None:
    canvas = Canvas((300, 200))
    for k in range(5):
        canvas.write("x", typefaces.known()[0].type(22), 30 + 50 * k, 60 + 25 * k)
    for seed in range(8):
        rng = random.Random(seed)
        tilted = tilt(rng, canvas.image.convert("L"), canvas.points, 4, 0.03, 255)
        photo = capture(rng, canvas.image, canvas.points, "photo")
        for image, points in (tilted, photo):
            assert image.size == canvas.size
            assert max(ink_at(image, x, y) for x, y in points) < 190


def test_warp_to_the_same_corners_changes_nothing() -> None:
    points = np.array([[3.0, 4.0], [50.0, 20.0]])
    image, moved = warp(Image.new("L", (64, 32), 9), points, corners_of((64, 32)), (64, 32), 0)
    np.testing.assert_allclose(moved, points, atol=1e-9)
    assert image.getextrema() == (9, 9)


@pytest.mark.parametrize("size", [(224, 224), (900, 70), (500, 1400), (700, 900), (1000, 1000), (90, 40)])
def test_tiling_is_the_processors(size: tuple[int, int]) -> None:
    processor = PaddingImageProcessor(
        crop_to_patches=True,
        min_patches=1,
        max_patches=12,
        size={"height": 224, "width": 224},
        max_enlargement=MAX_ENLARGEMENT,
    )
    pixels = processor(images=[Image.new("RGB", size)])["pixel_values"]
    assert tile(size).tiles == len(pixels)


def test_visual_tokens_are_counted_tile_by_tile() -> None:
    tiling = tile((448, 224))
    assert (tiling.columns, tiling.rows) == (2, 1)
    points = np.array(
        [[0.0, 0.0], [223.0, 0.0], [224.0, 0.0], [30.0, 223.0], [447.9, 223.9], [448.5, 10.0], [-1.0, 3.0]]
    )
    assert tiling.tokens_of(points).tolist() == [0, 7, 64, 57, 127, -1, -1]
    assert tile((224, 224)).tokens_of(np.zeros((0, 2))).shape == (0,)


@pytest.mark.parametrize("task", [*TASKS, *STRESS])
def test_documents_are_a_function_of_the_seed(task: str) -> None:
    part = "stress" if task in STRESS else "validation"
    first, again, other = (make_document(part, 1, seed, task) for seed in (3, 3, 4))
    assert first.image.tobytes() == again.image.tobytes()
    assert [turn.question for turn in first.turns] == [turn.question for turn in again.turns]
    assert first.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize("task", list(TASKS))
def test_answers_stand_on_the_page(task: str) -> None:
    for index in range(4):
        document = make_document("train", index, 0, task)
        assert document.turns
        for turn in document.turns:
            assert turn.gold
            assert turn.answer.text.endswith(turn.gold)
            assert turn.answer.text.isascii()
            copied = [(c, i) for c, i in zip(turn.answer.text, turn.answer.ids, strict=True) if i != NOWHERE]
            assert all(document.letters[i] == c for c, i in copied)
            looks = document.tiling.tokens_of(document.points[[i for _, i in copied]])
            assert len(copied) == 0 or (looks >= 0).mean() > 0.9
        assert copied or task == "sums"


def test_a_sample_has_all_turns_for_training_and_one_for_tests() -> None:
    assert len(make_sample("train", 0, 0, "forms").messages) > 2
    sample = make_sample("test", 0, 0, "forms")
    assert [message["role"] for message in sample.messages] == ["user", "assistant"]
    assert sample.metric == "anls"
    assert sample.answers == [sample.messages[1]["content"]]
    assert sample.tiles == tile(sample.images[0].size).tiles


def test_words_of_tests_are_never_trained_on() -> None:
    from fcot_vl.synthesize.documents.content import Content

    for split in ("train", "validation", "test"):
        content = Content(random.Random(1), split)
        assert {split_of(content.word()) for _ in range(50)} == {split}
        assert {split_of(content.code()) for _ in range(50)} == {split}


def test_only_tests_print_with_unseen_typefaces() -> None:
    rng = random.Random(0)
    unseen = {family.name for family in typefaces.unseen()}
    for split, share in (("train", 0.0), ("validation", 0.0), ("test", 0.5)):
        picked = [typefaces.pick(rng, split).name in unseen for _ in range(400)]
        assert abs(sum(picked) / 400 - share) < 0.1


def test_unknown_parts_and_tasks_are_named() -> None:
    with pytest.raises(ValueError, match="unknown MiniDoc split 'tests'; choose from train"):
        make_document("tests", 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown MiniDoc task 'form'; choose from lines"):
        make_document("test", 0, 0, "form")


@pytest.mark.slow
def test_density_follows_real_documents() -> None:
    plain = [make_document("test", i, 5).density for i in range(60)]
    assert np.median(plain) < 0.6
    assert np.mean(np.array(plain) < 1.5) > 0.85
    stress = [make_document("stress", i, 5).density for i in range(12)]
    assert 2 < np.median(stress) < 8


def test_all_parts_are_known() -> None:
    assert PARTS == ("train", "validation", "test", "stress")
