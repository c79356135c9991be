"""What a structured page is made of (headings, paragraphs, lists, tables, quotations, code), and the same as Markdown.

Layout pages print these blocks, web pages turn them into HTML; the answer of both is `markdown`. CommonMark, with
tables as GitHub writes them. Text is escaped so that a Markdown reader gives back exactly what was printed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Mark = Literal["", "bold", "italic", "code", "link"]
_AROUND: dict[Mark, str] = {"": "", "bold": "**", "italic": "*", "code": "`", "link": ""}
_SPECIAL = re.compile(r"[\\`*\[\]<>]|(?<!\w)_|_(?!\w)|~(?=~)|(?<=~)~|&(?=#?\w+;)")
_OPENING = re.compile(r"^(\d+)(?=[.)](\s|$))|^(?=[#+\-=~|]|:-)")


@dataclass(frozen=True)
class Span:
    """A run of text in one mark."""

    text: str
    mark: Mark = ""


Spans = tuple[Span, ...]


@dataclass(frozen=True)
class Heading:
    """A heading of `level` 1 to 6."""

    level: int
    spans: Spans


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    spans: Spans


@dataclass(frozen=True)
class Items:
    """A list, numbered from 1 if `ordered`."""

    items: tuple[Spans, ...]
    ordered: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of plain text, the first of them the header; all rows as long."""

    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Quote:
    """A quotation set off from the text."""

    spans: Spans


@dataclass(frozen=True)
class Code:
    """Lines printed as they are."""

    text: str


Block = Heading | Paragraph | Items | Table | Quote | Code


def plain(text: str) -> Spans:
    """`text` without marks."""
    return (Span(text),)


def escape(text: str) -> str:
    """`text` so that Markdown shows it as it is, inside of a line."""
    return _SPECIAL.sub(lambda found: "\\" + found.group(), text)


def _inline(spans: Spans) -> str:
    """Spans as one line of Markdown that does not turn into a heading, a list or a table row by its beginning."""
    parts = []
    for span in spans:
        around = _AROUND[span.mark]
        parts.append(around + (span.text if span.mark == "code" else escape(span.text)) + around)
    text = "".join(parts)
    if spans and spans[0].mark:
        return text
    return _OPENING.sub(lambda found: (found.group(1) or "") + "\\", text)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown; the first row is the header."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escape(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(rows[0]), "| " + " | ".join("---" for _ in rows[0]) + " |", *map(line, rows[1:])])


def _one(block: Block) -> str:
    if isinstance(block, Heading):
        return "#" * block.level + " " + _inline(block.spans)
    if isinstance(block, Items):
        marks = (f"{i}." if block.ordered else "-" for i in range(1, len(block.items) + 1))
        return "\n".join(f"{mark} {_inline(item)}" for mark, item in zip(marks, block.items, strict=True))
    if isinstance(block, Table):
        return markdown_table(block.rows)
    if isinstance(block, Quote):
        return "> " + _inline(block.spans)
    if isinstance(block, Code):
        return f"```\n{block.text}\n```"
    return _inline(block.spans)


def markdown(blocks: Sequence[Block]) -> str:
    """The blocks as Markdown, a blank line between them."""
    return "\n\n".join(_one(block) for block in blocks)
