"""OCR-like pages: the same record whatever the workers, answers that are what was printed, sources, errors, layouts.

Latin kinds print with DejaVu, which matplotlib brings; what needs more (Chinese or handwriting fonts, pango or
Chromium) is skipped where it is not installed, and its error is checked everywhere.
"""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from fcot_vl.common.stage import StageError
from fcot_vl.data.dataset import Sample, SampleFolder
from fcot_vl.synthesize.ocr import KINDS, Sources, chart, fonts, make_sample, scan, table, text
from fcot_vl.synthesize.ocr.blocks import (
    Block,
    Code,
    Heading,
    Items,
    Paragraph,
    Quote,
    Span,
    Table,
    markdown,
)
from fcot_vl.synthesize.ocr.content import Content, read_corpus
from fcot_vl.synthesize.ocr.fonts import FontError, face, families
from fcot_vl.synthesize.ocr.layout import compose
from fcot_vl.synthesize.ocr.read_html import passage, read_html
from fcot_vl.synthesize.ocr.render import renderer
from fcot_vl.synthesize.ocr.sheet import Sheet
from fcot_vl.synthesize.ocr.typeset import Type, unwrap
from fcot_vl.synthesize.ocr.web import keep
from fcot_vl.synthesize.ocr.write import synthesize_ocr

LATIN = ["text", "layout", "table", "chart", "scene"]


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


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float, str]]:
    """(x, baseline, line) of everything printed, in the order it was printed in."""
    seen: list[tuple[float, float, str]] = []
    draw = Type.draw

    def spy(self: Type, page: Image.Image, x: float, baseline: float, line: str, *rest: object) -> None:
        seen.append((x, baseline, line))
        draw(self, page, x, baseline, line, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Type, "draw", spy)
    return seen


@pytest.mark.parametrize("index", range(8))
def test_the_text_is_what_was_printed(index: int, drawn: list[tuple[float, float, str]]) -> None:
    page = text.make(random.Random(index), content(index))
    if page.request == "lines":
        printed = page.answer.split("\n")
        rows = [line for _, _, line in drawn]
        assert " ".join(printed).split() == " ".join(rows).split()  # a form's label and value share a line
    else:
        assert "".join(page.answer.split()) == "".join("".join(line for _, _, line in drawn).split())


def test_columns_are_read_one_after_the_other(drawn: list[tuple[float, float, str]]) -> None:
    rng = random.Random(0)
    sheet = Sheet()
    body = Type(face(families("print", "latin")[0]), 20)
    boxes = [(100.0 + 500 * i, 200.0, 450.0, 900.0) for i in range(2)]
    text._flow(rng, content(0), sheet, body, boxes)
    column = [int(x >= 600) for x, _, _ in drawn]
    assert column == sorted(column)
    assert set(column) == {0, 1}
    for side in (0, 1):
        heights = [y for (_, y, _), c in zip(drawn, column, strict=True) if c == side]
        assert heights == sorted(heights)
        assert max(heights) <= 900
    assert sheet.text(lines=True).split("\n") == [line for _, _, line in drawn]


def test_breaking_lines_loses_nothing_and_stays_inside() -> None:
    body = Type(face(families("print", "latin")[0]), 19)
    words = content(1).paragraph(20, 20)
    lines = body.wrap(words, 400)
    assert unwrap(lines) == words
    assert max(body.width(line) for line in lines) <= 400
    assert body.wrap("a " + "b" * 500 + " c", 400) == ["a c"]  # what cannot be printed is not in the answer


def test_chinese_lines_do_not_begin_or_end_with_the_wrong_mark() -> None:
    need("text_zh")
    body = Type(face(families("print", "zh")[0]), 24)
    words = "".join(content(i, "zh").paragraph(8, 8) for i in range(5))
    lines = body.wrap(words, 300)
    assert unwrap(lines) == words
    assert not any(line[0] in "，。、；：！？）》" or line[-1] in "（《“" for line in lines)


def test_what_a_font_lacks_is_not_printed() -> None:
    shown = face(families("print", "latin")[0])
    assert shown.keep("naïve — “ok” 漢字 x") == "naïve — “ok”  x"
    for kind in LATIN:
        assert "漢" not in make_sample(kind, 0).messages[1]["content"]


def inline_text(tokens: list[object]) -> list[str]:
    """Text of every inline token, marks taken off."""
    found = []
    for token in tokens:
        if token.type == "inline":  # type: ignore[attr-defined]
            found.append("".join(child.content for child in token.children))  # type: ignore[attr-defined]
        elif token.type == "fence":  # type: ignore[attr-defined]
            found.append(token.content.rstrip("\n"))  # type: ignore[attr-defined]
    return found


def block_text(blocks: list[Block]) -> list[str]:
    found: list[str] = []
    for block in blocks:
        if isinstance(block, Items):
            found += ["".join(span.text for span in item) for item in block.items]
        elif isinstance(block, Table):
            found += [cell for row in block.rows for cell in row]
        elif isinstance(block, Code):
            found.append(block.text)
        else:
            found.append("".join(span.text for span in block.spans))
    return found


@pytest.mark.parametrize("index", range(6))
def test_a_layouts_markdown_reads_back_as_its_blocks(index: int) -> None:
    _, blocks = compose(random.Random(index), content(index))
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown(blocks))
    assert inline_text(list(tokens)) == block_text(blocks)
    levels = [int(token.tag[1]) for token in tokens if token.type == "heading_open"]
    assert levels == [block.level for block in blocks if isinstance(block, Heading)]


@pytest.mark.parametrize(
    "nasty",
    [
        *(
            "# no heading",
            "1. no list",
            "- no",
            "+ no",
            "a * b * c",
            "_a_ b_c",
            "a | b",
            "<b>x</b>",
            "[a](b)",
        ),
        *(
            "`code`",
            "back\\slash",
            "&amp; &lt;",
            "~~gone~~",
            "> quote",
            "===",
            "---",
            "| a |",
            "1) x",
            "2024.",
            "*",
        ),
    ],
)
def test_markdown_shows_text_as_it_is(nasty: str) -> None:
    blocks: list[Block] = [
        Heading(2, (Span(nasty),)),
        Paragraph((Span(nasty),)),
        Items(((Span(nasty),), (Span("b"),))),
        Table((("h", nasty), (nasty, "x"))),
        Quote((Span(nasty),)),
    ]
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown(blocks))
    assert inline_text(list(tokens)) == block_text(blocks)


class Grid(HTMLParser):
    """The cells of an HTML table by place, merged ones at every place they cover."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: dict[tuple[int, int], str] = {}
        self.row, self.open = -1, list[tuple[int, int]]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.row += 1
        if tag in ("td", "th"):
            spans = {name: int(value or 1) for name, value in attrs}
            column = 0
            while (self.row, column) in self.cells:
                column += 1
            self.open = [
                (self.row + r, column + c)
                for r in range(spans.get("rowspan", 1))
                for c in range(spans.get("colspan", 1))
            ]
            self.cells |= dict.fromkeys(self.open, "")

    def handle_data(self, data: str) -> None:
        for place in self.open:
            self.cells[place] += data

    def handle_endtag(self, tag: str) -> None:
        self.open = []


@pytest.mark.parametrize("index", range(12))
def test_an_html_table_reads_back_as_its_cells(index: int) -> None:
    rng = random.Random(index)
    cells = table.merged_cells(rng, content(index))
    grid = Grid()
    grid.feed(table.html_table(cells))
    expected = {
        (cell.row + r, cell.column + c): cell.text
        for cell in cells
        for r in range(cell.rows)
        for c in range(cell.columns)
    }
    assert grid.cells == expected
    assert any(cell.rows * cell.columns > 1 for cell in cells)
    rows, columns = (1 + max(place[i] for place in expected) for i in (0, 1))
    assert len(expected) == rows * columns, "every place is covered once"


@pytest.mark.parametrize("index", range(10))
def test_a_tables_answer_is_what_was_printed(index: int, drawn: list[tuple[float, float, str]]) -> None:
    page = table.make(random.Random(index), content(index))
    if page.request == "table-markdown":
        tokens = MarkdownIt("commonmark").enable("table").parse(page.answer)
        answered = inline_text(list(tokens))
    else:
        grid = Grid()
        grid.feed(page.answer)
        answered = [grid.cells[place] for place in sorted(grid.cells)]
    printed = {word for _, _, line in drawn for word in line.split()}
    assert printed == {word for cell in answered for word in cell.split()}


@pytest.mark.parametrize("index", range(8))
def test_a_charts_dict_is_what_is_plotted(index: int) -> None:
    rng = random.Random(index)
    data = chart.chart_data(rng, content(index), labelled=True)
    assert ast.literal_eval(repr(data)) == data
    axes = chart.draw(rng, data, "latin", labelled=True).axes[0]
    series = data["data"]
    assert axes.get_title() == data["title"]
    if data["type"] == "pie":
        assert sum(series.values()) == 100
        printed = [label.get_text() for label in axes.texts]
        assert sorted(printed) == sorted([*series, *(f"{value}%" for value in series.values())])
    elif data["type"] == "scatter":
        plotted = [[tuple(map(int, p)) for p in c.get_offsets()] for c in axes.collections]  # type: ignore[attr-defined]
        assert plotted == list(series.values())
    elif data["type"] == "line":
        assert [list(map(float, line.get_ydata())) for line in axes.lines] == [
            list(map(float, values.values())) for values in series.values()
        ]
    else:
        for bars, values in zip(axes.containers, series.values(), strict=True):
            sizes = [max(bar.get_height(), bar.get_width()) for bar in bars]  # type: ignore[attr-defined]
            assert sizes == pytest.approx(list(values.values()))


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


def test_a_folder_of_texts_is_what_is_printed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Zyx wvu tsr qpo. " * 400)
    sources = Sources(corpus=tmp_path)
    answer = make_sample("layout", 0, 0, sources).messages[1]["content"]
    assert answer.count("wvu tsr") > 5
    assert make_sample("layout", 0, 0, sources).messages[1]["content"] == answer
    with pytest.raises(ValueError, match="no Chinese text"):
        content(0, "zh", sources).sentence()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no text here"):
        read_corpus(tmp_path / "empty")


HTML = """<html><head><title>no</title><style>p {color: red}</style></head><body>
<h1>Top &amp; more</h1><p>One <b>bold</b>, <a href="http://x">linked</a> and<br><i>slanted</i> words<p>Second
<script>alert(1)</script><div style="display:none">hidden<div>too</div></div><ul><li>a<li>b <code>c</code></ul>
<table><tr><th>k<th>v</tr><tr><td>1</td><td>2</td></tr></table><table><tr><td colspan=2>merged</td></tr></table>
<blockquote><p>said</p></blockquote><pre>x = 1
  y</pre></body></html>"""


def test_html_becomes_blocks(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(HTML)
    assert markdown(read_html(path)) == (
        "# Top & more\n\nOne **bold**, linked and\n\n*slanted* words\n\nSecond\n\n- a\n- b `c`\n\n"
        "| k | v |\n| --- | --- |\n| 1 | 2 |\n\n> said\n\n```\nx = 1\n  y\n```"
    )
    shown = face(families("print", "latin")[0])
    assert keep(Paragraph((Span("漢字"),)), shown) is None


def test_a_folder_of_html_is_what_is_shown(tmp_path: Path) -> None:
    need("web")
    (tmp_path / "page.html").write_text(HTML)
    page = make_sample("web", 0, 0, Sources(html=tmp_path))
    assert "Top & more" in page.messages[1]["content"]


def test_a_folder_without_chinese_html_has_no_chinese_page(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(HTML)
    with pytest.raises(ValueError, match="no Chinese page"):
        passage(random.Random(0), tmp_path, "zh", 800)


def test_a_chinese_page_is_not_made_of_latin_html(tmp_path: Path) -> None:
    need("web_zh")
    (tmp_path / "page.html").write_text(HTML)
    with pytest.raises(ValueError, match="no Chinese page"):
        make_sample("web_zh", 0, 0, Sources(html=tmp_path))


@pytest.mark.slow
def test_making_web_pages_does_not_let_damaged_pictures_in(tmp_path: Path) -> None:
    """weasyprint tells Pillow to accept truncated pictures when it is imported. A process shows it: imported once."""
    need("web")
    Image.effect_noise((200, 200), 90).convert("RGB").save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:2000])
    code = """
import sys
from PIL import Image, ImageFile
from fcot_vl.data.images import ImageError, open_image
from fcot_vl.synthesize.ocr import make_sample
make_sample("web", 0, 0)
assert not ImageFile.LOAD_TRUNCATED_IMAGES
try:
    open_image(sys.argv[1])
except ImageError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "cut.jpg")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "cut.jpg: damaged or cut short" in ran.stdout


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
    with pytest.raises(ValueError, match="every kind once"):
        synthesize_ocr(tmp_path, ["text", "text"], 1)
    with pytest.raises(ValueError, match="all at least 1"):
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
