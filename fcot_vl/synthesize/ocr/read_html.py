"""Reader that converts HTML files to blocks: headings, paragraphs, lists, tables, quotations and code.

Scripts, styles, images, forms, hidden elements and tables with merged cells are dropped. The rest can be printed and
written as Markdown without loss.
"""

from __future__ import annotations

import random
import re
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path

from fcot_vl.synthesize.ocr.blocks import (
    Block,
    Code,
    Heading,
    Items,
    Mark,
    Paragraph,
    Quote,
    Span,
    Spans,
    Table,
)
from fcot_vl.synthesize.ocr.fonts import Language

_DROPPED = {
    *("script", "style", "noscript", "template", "head", "svg", "math", "iframe", "object"),
    *("select", "button", "textarea", "form", "video", "audio", "canvas"),
}
_BLOCKS = set(
    "p div section article main header footer nav aside ul ol li dl dt dd figure figcaption hr br".split()  # noqa: SIM905
)
_MARKS: dict[str, Mark] = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "code": "code",
    "a": "link",
}
_VOID = set("area base br col embed hr img input link meta param source track wbr".split())  # noqa: SIM905
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_MOST_COLUMNS, _MOST_ROWS, _LONGEST_CODE = 6, 20, 70


def files(folder: Path) -> dict[Language, list[Path]]:
    """Return the ``*.html`` and ``*.htm`` files of a folder, by language.

    Raises:
        ValueError: If there is none.
    """
    found: dict[Language, list[Path]] = {"latin": [], "zh": []}
    for path in sorted(folder.rglob("*.htm*")):
        text = re.sub(r"<[^>]*>", "", path.read_text(encoding="utf-8", errors="ignore"))
        letters = sum(c.isalpha() for c in text)
        if letters:
            found["zh" if len(_HAN.findall(text)) > letters / 3 else "latin"].append(path)
    if not any(found.values()):
        raise ValueError(f"{folder}: no page here; --html takes a folder of *.html files in UTF-8")
    return found


@lru_cache(maxsize=4)
def _files(folder: Path) -> dict[Language, list[Path]]:
    return files(folder)


def passage(rng: random.Random, folder: Path, language: Language, characters: int) -> list[Block]:
    """Return consecutive blocks from a random position of a random file, with about `characters` characters.

    Raises:
        ValueError: If the folder has no page of that language with a printable block.
    """
    paths = _files(folder)[language]
    for path in rng.sample(paths, len(paths)):
        blocks = read_html(path)
        if blocks:
            starts = [i for i, block in enumerate(blocks) if isinstance(block, Heading)] or [0]
            first, taken, used = rng.choice([0, *starts]), [], 0
            for block in blocks[first:]:
                taken.append(block)
                used += len(repr(block))
                if used > characters:
                    break
            return taken
    name = "Chinese" if language == "zh" else "Latin"
    raise ValueError(f"{folder}: no {name} page in this --html folder; leave out the kind that needs it")


@lru_cache(maxsize=64)
def read_html(path: Path) -> tuple[Block, ...]:
    """Return the blocks of one file."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8", errors="ignore"))
    reader.close()
    reader.flush()
    return tuple(reader.blocks)


def tidy(spans: list[Span]) -> Spans:
    """Normalise blanks and strip the ends. Drop marks that Markdown cannot write unambiguously."""
    merged: list[Span] = []
    for span in spans:
        text = re.sub(r"\s+", " ", span.text)
        if (not merged or merged[-1].text.endswith(" ")) and text.startswith(" "):
            text = text[1:]
        if not text:
            continue
        clean = text.strip()
        whole = (
            bool(clean) and clean[0].isalnum() and clean[-1].isalnum() and "`" not in clean and clean == text
        )
        apart = not merged or not merged[-1].text[-1].isalnum()
        mark = span.mark if whole and (apart or span.mark == "link") else ""
        if merged and merged[-1].mark in ("bold", "italic", "code") and text[0].isalnum():
            merged[-1] = Span(merged[-1].text)  # some readers do not show `**a**b` as bold
        if merged and merged[-1].mark == mark == "":
            merged[-1] = Span(merged[-1].text + text)
        else:
            merged.append(Span(text, mark))
    while merged and not merged[-1].text.rstrip():
        merged.pop()
    if merged:
        merged[-1] = Span(merged[-1].text.rstrip(), merged[-1].mark)
    return tuple(merged)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.spans: list[Span] = []
        self.marks: list[tuple[str, Mark]] = []
        self.dropping: list[str] = []
        self.heading = 0
        self.quoted = 0
        self.pre = False
        self.lists: list[tuple[bool, list[Spans]]] = []
        self.tables = 0
        self.rows: list[list[str]] = []
        self.merged = False

    def flush(self) -> None:
        """End the current block."""
        spans = tidy(self.spans)
        self.spans = []
        if not spans:
            return
        if self.lists:
            self.lists[-1][1].append(spans)
        elif self.heading:
            self.blocks.append(Heading(self.heading, (Span("".join(span.text for span in spans)),)))
        elif self.quoted:
            self.blocks.append(Quote(spans))
        else:
            self.blocks.append(Paragraph(spans))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if self.dropping:
            if tag == self.dropping[-1]:
                self.dropping.append(tag)
            return
        hidden = (
            "hidden" in given
            or _HIDDEN.search(given.get("style") or "")
            or given.get("aria-hidden") == "true"
        )
        if (tag in _DROPPED or hidden) and tag not in _VOID:
            self.dropping.append(tag)
        elif tag == "table":
            self.flush()
            self.tables += 1
            self.rows, self.merged = [], self.merged or self.tables > 1
        elif self.tables:
            self._in_table(tag, given)
        elif tag in _MARKS:
            self.marks.append((tag, _MARKS[tag]))
        elif tag in _BLOCKS or re.fullmatch(r"h[1-6]|blockquote|pre", tag):
            self.flush()
            self._open(tag)

    def _open(self, tag: str) -> None:
        if tag in ("ul", "ol"):
            self.lists.append((tag == "ol", []))
        elif tag == "blockquote":
            self.quoted += 1
        elif tag == "pre":
            self.pre = True
        elif len(tag) == 2 and tag[1].isdigit():
            self.heading = int(tag[1])

    def _in_table(self, tag: str, given: dict[str, str | None]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.merged = self.merged or any(given.get(name, "1") != "1" for name in ("rowspan", "colspan"))
            if not self.rows:
                self.rows.append([])
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if self.dropping:
            if tag == self.dropping[-1]:
                self.dropping.pop()
            return
        if tag == "table" and self.tables:
            self.tables -= 1
            if not self.tables:
                self._close_table()
        elif self.tables:
            return
        elif tag in _MARKS:
            if any(name == tag for name, _ in self.marks):
                while self.marks.pop()[0] != tag:
                    pass
        elif tag == "pre":
            self._close_code()
        elif tag in _BLOCKS or re.fullmatch(r"h[1-6]|blockquote", tag):
            self.flush()
            self._close(tag)

    def _close(self, tag: str) -> None:
        self.marks = []  # a mark does not extend into the next block
        if tag in ("ul", "ol") and self.lists:
            ordered, items = self.lists.pop()
            if self.lists:
                self.lists[-1][1].extend(items)
            elif items:
                self.blocks.append(Items(tuple(items), ordered))
        elif tag == "blockquote":
            self.quoted = max(0, self.quoted - 1)
        elif len(tag) == 2 and tag[1].isdigit():
            self.heading = 0

    def _close_table(self) -> None:
        rows = [[" ".join(cell.split()) for cell in row] for row in self.rows if row]
        even = rows and len({len(row) for row in rows}) == 1
        if even and not self.merged and 1 < len(rows) <= _MOST_ROWS and len(rows[0]) <= _MOST_COLUMNS:
            self.blocks.append(Table(tuple(tuple(row) for row in rows)))
        self.rows, self.merged = [], False

    def _close_code(self) -> None:
        text = "".join(span.text for span in self.spans).strip("\n").rstrip()
        self.spans, self.pre = [], False
        lines = text.expandtabs(4).splitlines()
        if lines and len(lines) <= 30 and max(map(len, lines)) <= _LONGEST_CODE and "```" not in text:
            self.blocks.append(Code("\n".join(line.rstrip() for line in lines)))

    def handle_data(self, data: str) -> None:
        if self.dropping:
            return
        if self.tables:
            if self.rows and self.rows[-1]:
                self.rows[-1][-1] += data
            return
        self.spans.append(Span(data, "" if self.pre or not self.marks else self.marks[-1][1]))
