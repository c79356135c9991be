"""MiniDoc: seeded, split by content, scored answers that stand on the page, and the shards that hold it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Features, Image, List

from fcot_vl.common.stage import StageError
from fcot_vl.data.dataset import SampleFolder, write_shard
from fcot_vl.stages.synthesize import synthesize
from fcot_vl.synthesize.documents.words import split_of
from fcot_vl.synthesize.minidoc import METRICS, TASKS, make_document, make_sample
from fcot_vl.synthesize.minidoc.page import Page
from fcot_vl.synthesize.minidoc.text import COLUMNS, FIELDS, ITEMS

SHARED_WORDS = {w.lower() for w in (*FIELDS, *ITEMS, *COLUMNS, "Item", "Shop", "St")}


@pytest.mark.parametrize("task", TASKS)
def test_record_is_a_function_of_seed_split_task_and_index(task: str) -> None:
    first, again = make_sample("test", 3, 1, task), make_sample("test", 3, 1, task)
    other = make_sample("test", 3, 2, task)
    assert np.array_equal(np.asarray(first.images[0]), np.asarray(again.images[0]))
    assert first.messages == again.messages
    assert not np.array_equal(np.asarray(first.images[0]), np.asarray(other.images[0]))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_content_words_belong_to_their_split(split: str) -> None:
    """Every printed pseudo-word of four letters or more that was not cut to fit hashes to the page's split."""
    seen = foreign = 0
    for index in range(60):
        document = make_document(split, index, 0, "transcribe")
        for span in document.page.spans:
            for found in re.findall(r"[A-Za-z]{4,}", span.text):
                seen += 1
                foreign += split_of(found) != split and found.lower() not in SHARED_WORDS
    assert seen > 500
    assert foreign == 0


@pytest.mark.parametrize("task", TASKS)
def test_copied_answer_pieces_stand_on_the_page(task: str) -> None:
    for index in range(40):
        document = make_document("train", index, 0, task)
        printed = {
            (cell, char) for s in document.page.spans for cell, char in zip(s.cells, s.text, strict=True)
        }
        for turn in document.turns:
            assert turn.gold
            for piece in turn.pieces:
                if not isinstance(piece, str):
                    assert all((c, t) in printed for c, t in zip(piece.cells, piece.text, strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_prints_never_overlap(task: str) -> None:
    for index in range(40):
        taken: set[tuple[int, int]] = set()
        for span in make_document("test", index, 0, task).page.spans:
            for character, (column, row) in zip(span.text, span.cells, strict=True):
                if character == " ":
                    continue
                block = {(column + x, row + y) for x in range(span.scale) for y in range(span.scale)}
                assert not block & taken, f"{span.text!r} overprints at {column},{row}"
                taken |= block


def test_worked_answers_are_right() -> None:
    checked = 0
    for task in ("sums", "table_qa", "chart_qa"):
        for index in range(80):
            for turn in make_document("test", index, 0, task).turns:
                for left, sign, right, result in re.findall(r"(\d+)([+-])(\d+)=(\d+)", turn.answer):
                    value = int(left) + int(right) if sign == "+" else int(left) - int(right)
                    assert value == int(result)
                    checked += 1
                if "Answer: " in turn.answer:
                    assert turn.answer.split("Answer: ")[1] == turn.gold
    assert checked > 100


def test_one_of_four_options_is_right() -> None:
    for index in range(60):
        for turn in make_document("test", index, 0, "multiple_choice").turns:
            options = turn.question.partition("? ")[2].split(" / ")
            assert len(set(options)) == 4
            assert options.count(turn.gold) == 1 and turn.answer == turn.gold


def test_density_covers_one_to_eight_characters_a_token() -> None:
    densities = [make_document("test", i, 0, "transcribe").page.density for i in range(300)]
    for low, high in ((0, 2), (2, 4), (4, 6), (6, 8)):
        assert sum(low <= d <= high for d in densities) >= 10, (low, high)
    assert max(densities) > 7


def test_dense_pages_have_two_to_six_tiles_and_a_thumbnail() -> None:
    tiles = {make_document("test", i, 0, "dense_pages").page.tiles for i in range(100)}
    assert tiles == {3, 4, 5, 7}  # 2, 3, 4 and 6 tiles, and the thumbnail


def test_token_of_counts_tiles_in_raster_order() -> None:
    page = Page(2, 2)
    assert page.token_of((0, 0)) == 0
    assert page.token_of((4, 0)) == 1
    assert page.token_of((0, 2)) == 8
    assert page.token_of((32, 0)) == 64
    assert page.token_of((0, 16)) == 128
    assert page.token_of((63, 31)) == 255
    with pytest.raises(ValueError, match="does not fit"):
        page.print(60, 0, "too long")


def test_unknown_split_and_task_are_named() -> None:
    with pytest.raises(ValueError, match="split 'dev'"):
        make_document("dev", 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="task 'poem'"):
        make_document("test", 0, task="poem")


def test_shards_round_trip_and_resume(tmp_path: Path) -> None:
    folder = synthesize(tmp_path / "test", "test", records=20, seed=5, shard_size=8)
    before = [p.read_bytes() for p in sorted(folder.glob("*.parquet"))]
    assert len(before) == 3
    samples = SampleFolder(folder)
    assert len(samples) == 20
    assert [s.task for s in samples[:8]] == list(TASKS)
    expected = make_sample("test", 1, 5, "forms")
    assert samples[9].messages == expected.messages
    assert samples[9].metric == METRICS["forms"]
    assert np.array_equal(np.asarray(samples[9].images[0]), np.asarray(expected.images[0]))
    (folder / "test-00001.parquet").unlink()
    (folder / "stage.json").write_text((folder / "stage.json").read_text().replace('"done"', '"running"'))
    synthesize(folder, "test", records=20, seed=5, shard_size=8)
    assert [p.read_bytes() for p in sorted(folder.glob("*.parquet"))] == before
    with pytest.raises(StageError):
        synthesize(folder, "test", records=21, seed=5, shard_size=8)


def test_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \*\.parquet"):
        SampleFolder(tmp_path)
    write_shard(tmp_path / "a.parquet", [make_sample("test", 0)])
    assert len(SampleFolder(tmp_path)) == 1


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    shard = tmp_path / "a.parquet"
    write_shard(shard, [make_sample("test", 0)])
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a\.parquet: not a whole shard"):
        SampleFolder(tmp_path)


def test_a_shard_is_pictures_to_datasets(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.parquet", [make_sample("test", 0)], "JPEG")
    features = Features.from_arrow_schema(pq.read_schema(tmp_path / "a.parquet"))
    assert features["images"] == List(Image())
