"""The answer of a page is what was printed on it: text, layout, tables and charts."""

from __future__ import annotations

import ast
import random
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from ocr_case import content, need
from PIL import Image

from fcot_vl.synthesize.ocr import chart, make_sample, table, text
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
from fcot_vl.synthesize.ocr.fonts import face, families
from fcot_vl.synthesize.ocr.layout import compose
from fcot_vl.synthesize.ocr.sheet import Sheet
from fcot_vl.synthesize.ocr.typeset import Type, unwrap

LATIN = ["text", "layout", "table", "chart", "scene"]


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
