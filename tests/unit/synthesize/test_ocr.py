"""OCR-like pages: the same record whatever the workers, answers that are what was printed, sources, errors, layouts.

Latin kinds print with DejaVu, which matplotlib brings; what needs more (Chinese or handwriting fonts, pango or
Chromium) is skipped where it is not installed, and its error is checked everywhere."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from ocr_case import content, need
from PIL import Image

from fcot_vl.common.stage import StageError
from fcot_vl.data.dataset import Sample, SampleFolder
from fcot_vl.synthesize.ocr import KINDS, Sources, fonts, make_sample, scan
from fcot_vl.synthesize.ocr.fonts import FontError
from fcot_vl.synthesize.ocr.write import synthesize_ocr


def same(a: Sample, b: Sample) -> bool:
    return a.messages == b.messages and np.array_equal(np.asarray(a.images[0]), np.asarray(b.images[0]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_a_function_of_kind_seed_and_index(kind: str) -> None:
    need(kind)
    first = make_sample(kind, 3, 1)
    make_sample(kind, 4, 1)  # what was made before does not count
    assert same(first, make_sample(kind, 3, 1))
    assert not same(first, make_sample(kind, 3, 2))
    assert (first.task, first.source) == (kind, "synthetic")
    assert [turn["role"] for turn in first.messages] == ["user", "assistant"]
    assert all(turn["content"].strip() for turn in first.messages)
    chinese = any("\u4e00" <= c <= "\u9fff" for c in first.messages[0]["content"])
    assert chinese == kind.endswith("_zh")
    assert np.asarray(first.images[0].convert("L")).std() > 5


def test_a_record_does_not_depend_on_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faker's dates end with today; ours must not, or a resumed run would mix two data sets."""
    made = content(5)
    for name in ("date_object", "date", "date_this_decade", "past_date"):
        monkeypatch.setattr(made.fake, name, lambda *_: pytest.fail("a date of Faker's"), raising=False)
    days = [made.date() for _ in range(50)]
    assert len(set(days)) > 40


@pytest.mark.parametrize("index", range(12))
def test_a_scan_keeps_the_size(index: int) -> None:
    page = Image.new("L", (620, 877), 255)
    page.paste(0, (100, 100, 500, 120))
    scanned, stamped = scan.scan(random.Random(index), page, "latin")
    assert scanned.size == page.size
    assert scanned.mode == ("RGB" if stamped else "L")
    assert np.asarray(scanned.convert("L"))[105:115, 250:350].mean() < 140  # print is still dark


def test_every_degradation_keeps_the_size_and_does_something() -> None:
    page = Image.new("L", (2200, 300), 255)
    page.paste(0, (100, 100, 500, 120))
    rng = random.Random(0)
    made = [
        scan.skew(page, 1.5, 255),
        scan.shadow(rng, page.size),
        scan.noise(rng, page.size),
        scan.jpeg(page, 25),
        scan.stamp(rng, page, "latin"),
    ]
    for image in made:
        assert image.size == page.size
        assert not np.array_equal(np.asarray(image.convert("L")), np.asarray(page))


def test_a_missing_font_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "FOLDERS", ())
    for cached in (fonts._files, fonts.families, fonts.system_families):
        cached.cache_clear()
    try:
        for kind, package in (
            ("text_zh", "fonts-noto-cjk"),
            ("chart_zh", "fonts-arphic-ukai"),
            ("handwriting", "fonts-dancingscript"),
            ("handwriting_zh", "fonts-arphic-ukai"),
        ):
            with pytest.raises(FontError, match=package):
                make_sample(kind, 0)
        with pytest.raises(FontError, match="fonts-dejavu-core"):
            make_sample("web", 0)
        assert make_sample("text", 0).images  # DejaVu is always there
    finally:
        for cached in (fonts._files, fonts.families, fonts.system_families):
            cached.cache_clear()


def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        make_sample("poem", 0)
    with pytest.raises(ValueError, match="unknown kind"):
        synthesize_ocr(tmp_path, ["poem"], 1)
    with pytest.raises(ValueError, match="a kind is named twice"):
        synthesize_ocr(tmp_path, ["text", "text"], 1)
    with pytest.raises(ValueError, match="each number must be at least 1"):
        synthesize_ocr(tmp_path, ["text"], 0)
    with pytest.raises(ValueError, match="no such folder"):
        synthesize_ocr(tmp_path, ["text"], 1, sources=Sources(corpus=tmp_path / "none"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_workers_and_shards_do_not_change_a_record(tmp_path: Path) -> None:
    kinds = ["table", "scene"]
    one = SampleFolder(synthesize_ocr(tmp_path / "one", kinds, 6, seed=4, shard_size=6))
    two = SampleFolder(synthesize_ocr(tmp_path / "two", kinds, 6, seed=4, shard_size=2, workers=2))
    assert len(two.shards) == 3
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
    expected = make_sample("scene", 1, 4)
    assert one[3].messages == expected.messages
    assert one[3].images[0].size == expected.images[0].size


@pytest.mark.faults
def test_an_interrupted_run_goes_on_and_writes_internvl(tmp_path: Path) -> None:
    folder = synthesize_ocr(tmp_path / "pages", ["table"], 5, shard_size=2, internvl=True)
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    kept = (folder / "pages-00000.parquet").stat().st_mtime_ns
    (folder / "pages-00001.parquet").unlink()
    (folder / "pages-00002.parquet").rename(
        folder / ".pages-00002.parquet.partial"
    )  # killed before it was whole
    (folder / "stage.json").write_text((folder / "stage.json").read_text().replace('"done"', '"running"'))
    synthesize_ocr(folder, ["table"], 5, shard_size=2, internvl=True)
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == before
    assert (folder / "pages-00000.parquet").stat().st_mtime_ns == kept
    with pytest.raises(StageError, match="kinds"):
        synthesize_ocr(folder, ["scene"], 5, shard_size=2, internvl=True)

    lines = [json.loads(line) for line in (folder / "internvl/annotations.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    for line, sample in zip(lines, SampleFolder(folder), strict=True):
        picture = Image.open(folder / "internvl" / line["image"])
        assert picture.format == "JPEG"
        assert (line["width"], line["height"]) == picture.size == sample.images[0].size
        assert line["id"] == sample.id
        assert line["conversations"] == [
            {"from": "human", "value": "<image>\n" + sample.messages[0]["content"]},
            {"from": "gpt", "value": sample.messages[1]["content"]},
        ]
    (meta,) = json.loads((folder / "internvl/meta.json").read_text()).values()
    assert meta["length"] == 5
    assert (Path(meta["root"]) / lines[0]["image"]).exists()
    assert Path(meta["annotation"]).exists()
    assert {"repeat_time", "data_augment"} <= meta.keys()
