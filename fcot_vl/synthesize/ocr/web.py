"""Web pages: blocks rendered as HTML with one of many style sheets. The answer is the same blocks as Markdown.

The blocks are invented or taken from the user's own HTML files. Those files are never rendered themselves. This way the
answer is exactly the visible content, and nothing is run or fetched.
"""

from __future__ import annotations

import html
import random
from dataclasses import replace

from fcot_vl.synthesize.ocr import render
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
    markdown,
    plain,
)
from fcot_vl.synthesize.ocr.content import Content
from fcot_vl.synthesize.ocr.fonts import Face, face, system_families
from fcot_vl.synthesize.ocr.read_html import passage, tidy
from fcot_vl.synthesize.ocr.sheet import Printed
from fcot_vl.synthesize.ocr.table import plain_cells, text_rows

_TAGS: dict[Mark, str] = {"bold": "strong", "italic": "em", "code": "code", "link": "u"}
_CODE = (
    "def {a}({b}):",
    "    return {b} + {n}",
    "{a} = {n}",
    "for {b} in range({n}):",
    "    print({b})",
    "# {a}",
)


_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # no scripts, no requests


def make(rng: random.Random, content: Content) -> Printed:
    """Make a web page, shortened until it fits the image."""
    family = rng.choice(system_families(content.language))
    shown = face(family)
    if content.sources.html is None:
        blocks = invent(rng, content)
    else:
        blocks = passage(rng, content.sources.html, content.language, rng.randint(800, 3500))
    blocks = [kept for block in blocks if (kept := keep(block, shown)) is not None] or [Paragraph(plain("-"))]
    width, sheet = rng.randint(720, 1200), style(rng, family.name)
    while True:
        image = render.picture(document(blocks, sheet), width)
        if image is not None:
            return Printed(image, "web", markdown(blocks))
        if len(blocks) == 1:
            raise ValueError(
                f"a single block is higher than {render.TALLEST} pixels: {markdown(blocks)[:80]}"
            )
        blocks = blocks[: max(1, len(blocks) * 2 // 3)]


def keep(block: Block, shown: Face) -> Block | None:
    """Return the block with only the text that `shown` can print, or None if nothing is left."""

    def kept(spans: Spans) -> Spans:
        return tidy([Span(shown.keep(span.text), span.mark) for span in spans])

    if isinstance(block, Items):
        items = tuple(item for spans in block.items if (item := kept(spans)))
        return replace(block, items=items) if items else None
    if isinstance(block, Table):
        return Table(tuple(tuple(" ".join(shown.keep(cell).split()) for cell in row) for row in block.rows))
    if isinstance(block, Code):
        return block if block.text.isascii() else None  # printed in the renderer's monospace font
    spans = kept(block.spans)
    return replace(block, spans=spans) if spans else None


def invent(rng: random.Random, content: Content) -> list[Block]:
    """Invent the blocks of a page: menu, title, sections, footer."""
    blocks: list[Block] = []
    if rng.random() < 0.6:
        blocks.append(Items(tuple(plain(content.words(1, 1)) for _ in range(rng.randint(3, 6)))))
    blocks.append(Heading(1, plain(content.title())))
    if rng.random() < 0.5:
        blocks.append(Paragraph(plain(f"{content.name()} · {content.date()}")))
    for _ in range(rng.randint(1, 4)):
        if rng.random() < 0.7:
            blocks.append(Heading(rng.choice((2, 2, 3)), plain(content.title())))
        blocks.append(Paragraph(_marked(rng, content)))
        more = rng.random()
        if more < 0.25:
            items = tuple(plain(content.words(2, 8)) for _ in range(rng.randint(2, 6)))
            blocks.append(Items(items, ordered=rng.random() < 0.4))
        elif more < 0.42:
            rows = text_rows(plain_cells(rng, content, (2, 6), (2, 4)))
            blocks.append(Table(tuple(tuple(row) for row in rows)))
        elif more < 0.52:
            blocks.append(Quote(plain(content.paragraph(1, 2))))
        elif more < 0.6:
            a, b = content.fake.word(), rng.choice("xyn")
            a = a if a.isascii() and a.isidentifier() else "value"
            lines = [line.format(a=a, b=b, n=rng.randint(1, 99)) for line in rng.sample(_CODE, 4)]
            blocks.append(Code("\n".join(lines)))
    if rng.random() < 0.5:
        blocks.append(Paragraph(plain(f"© {rng.randint(2000, 2026)} {content.company()}")))
    return blocks


def _marked(rng: random.Random, content: Content) -> Spans:
    """Make a paragraph with some words in bold, italic, code, or underlined as a link."""
    spans: list[Span] = []
    between = "" if content.language == "zh" else " "
    for i in range(rng.randint(2, 6)):
        if i and between:
            spans.append(Span(between))
        spans.append(Span(content.sentence()))
        if content.language == "latin" and rng.random() < 0.35:
            mark: Mark = rng.choice(["bold", "italic", "code", "link"])
            spans += [Span(" "), Span(content.words(1, 3), mark)]
    return tidy(spans)


def style(rng: random.Random, family: str) -> str:
    """Make a random style sheet."""
    dark = rng.random() < 0.2
    paper, ink = (
        ("#1d1f24", "#e6e6e6") if dark else (rng.choice(["#ffffff", "#fdfcf7", "#f5f7fa"]), "#222222")
    )
    accent = rng.choice(["#1a5fb4", "#a51d2d", "#26745a", "#613583", "#8a5a00"])
    if dark:
        accent = rng.choice(["#8ab4f8", "#f28b82", "#81c995"])
    lines = rng.choice(["border: 1px solid #999", "border-bottom: 1px solid #999"])
    menu = (
        f"background: {accent}; color: {paper}"
        if rng.random() < 0.5
        else f"border-bottom: 2px solid {accent}"
    )
    align = rng.choice(["left", "left", "center"])
    return f"""
html, body {{ margin: 0; background: {paper}; color: {ink} }}
body {{ font: {rng.randint(16, 20)}px/{rng.uniform(1.4, 1.8):.2f} "{family}"; overflow-wrap: anywhere }}
main {{ max-width: {rng.randint(640, 1000)}px; margin: {rng.choice(["0", "0 auto"])}; padding: 24px 36px }}
h1, h2, h3, h4, h5, h6 {{ color: {rng.choice([ink, accent])}; line-height: 1.25; text-align: {align} }}
u {{ color: {accent} }}
.menu {{ {menu}; margin: 0 0 20px; padding: 10px 14px; list-style: none }}
.menu li {{ display: inline-block; margin-right: 26px }}
table {{ border-collapse: collapse; margin: 16px 0 }}
th, td {{ {lines}; padding: {rng.randint(3, 9)}px 12px; text-align: left }}
th {{ background: {rng.choice(["transparent", "#88888833"])} }}
blockquote {{ border-left: 4px solid {accent}; margin: 16px 0; padding: 2px 18px }}
pre, code {{ font-family: "DejaVu Sans Mono", "Liberation Mono", monospace; font-size: 0.9em; background: #88888822 }}
pre {{ padding: 12px; white-space: pre-wrap }}
#end {{ height: 6px; background: rgb{render.END} }}
"""


def document(blocks: list[Block], sheet: str) -> str:
    """Build the whole HTML page. If the first block is a list, it becomes the menu."""
    body = [_html(block, menu=i == 0) for i, block in enumerate(blocks)]
    return (
        '<!DOCTYPE html><html><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{sheet}</style></head>'
        f'<body><main>{"".join(body)}</main><div id="end"></div></body></html>'
    )


def _inline(spans: Spans) -> str:
    parts = []
    for span in spans:
        text = html.escape(span.text)
        parts.append(f"<{_TAGS[span.mark]}>{text}</{_TAGS[span.mark]}>" if span.mark else text)
    return "".join(parts)


def _html(block: Block, menu: bool = False) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_inline(block.spans)}</h{block.level}>"
    if isinstance(block, Items):
        tag = "ol" if block.ordered else "ul"
        items = "".join(f"<li>{_inline(item)}</li>" for item in block.items)
        return f"<{tag}{' class=menu' if menu and not block.ordered else ''}>{items}</{tag}>"
    if isinstance(block, Table):
        head, *rows = block.rows
        cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
        return f"<table><tr>{cells}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
    if isinstance(block, Quote):
        return f"<blockquote>{_inline(block.spans)}</blockquote>"
    if isinstance(block, Code):
        return f"<pre>{html.escape(block.text)}</pre>"
    return f"<p>{_inline(block.spans)}</p>"
