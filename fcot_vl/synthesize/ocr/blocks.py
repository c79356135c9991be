"""Blocks of a structured page (headings, paragraphs, lists, tables, quotations, code), and their Markdown.

Layout pages print these blocks and web pages convert them to HTML. The answer of both is `markdown`. The format is
CommonMark with GitHub's tables. Text is escaped, so that a Markdown reader returns exactly the printed text.
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
    """Run of text with one mark."""

    text: str
    mark: Mark = ""


Spans = tuple[Span, ...]


@dataclass(frozen=True)
class Heading:
    """Heading of `level` 1 to 6."""

    level: int
    spans: Spans


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    spans: Spans


@dataclass(frozen=True)
class Items:
    """List, numbered from 1 if `ordered`."""

    items: tuple[Spans, ...]
    ordered: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of plain text, all of the same length. The first row is the header."""

    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Quote:
    """Block quotation."""

    spans: Spans


@dataclass(frozen=True)
class Code:
    """Lines of code, printed verbatim."""

    text: str


Block = Heading | Paragraph | Items | Table | Quote | Code


def plain(text: str) -> Spans:
    """Return `text` as spans without marks."""
    return (Span(text),)


def escape(text: str) -> str:
    """Escape `text` so that Markdown shows it verbatim inside a line."""
    return _SPECIAL.sub(lambda found: "\\" + found.group(), text)


def _inline(spans: Spans) -> str:
    """Convert spans to one line of Markdown whose start is not read as a heading, a list or a table row."""
    parts = []
    for span in spans:
        around = _AROUND[span.mark]
        parts.append(around + (span.text if span.mark == "code" else escape(span.text)) + around)
    text = "".join(parts)
    if spans and spans[0].mark:
        return text
    return _OPENING.sub(lambda found: (found.group(1) or "") + "\\", text)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Convert a table to Markdown. The first row is the header."""

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
    """Convert blocks to Markdown, separated by blank lines."""
    return "\n\n".join(_one(block) for block in blocks)
