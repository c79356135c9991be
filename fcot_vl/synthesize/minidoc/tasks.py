"""MiniDoc's eight tasks: what is on the page, what is asked, what is the answer.

Each task is a function ``(rng, split) -> (Page, turns)``; every turn is a
question and an answer made of literal strings and of `Span` parts of the page (see `Turn`). The tasks mirror the
paper's benchmarks (section 4): the mirrored one is named in each docstring.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from fcot_vl.synthesize.documents.words import Split, code, word
from fcot_vl.synthesize.minidoc.page import CELL_HEIGHT, CELL_WIDTH, FONTS, Page, Span
from fcot_vl.synthesize.minidoc.text import COLUMNS, FIELDS, ITEMS, running_text, value

# Numbers that are calculated with are round: the benchmark is of reading, not of arithmetic.
ROUND = range(10, 100, 10)


@dataclass(frozen=True)
class Turn:
    """One question; its answer's pieces (a `Span` piece was copied from the page); the gold answer scored."""

    question: str
    pieces: tuple[str | Span, ...]
    gold: str

    @property
    def answer(self) -> str:
        return "".join(p if isinstance(p, str) else p.text for p in self.pieces)


Made = tuple[Page, list[Turn]]


def _blank(rng: random.Random, tile_columns: int = 1, tile_rows: int = 1) -> Page:
    paper = rng.uniform(0.75, 1.0)
    return Page(tile_columns, tile_rows, rng.choice(FONTS), paper, rng.uniform(0.0, paper - 0.6))


def _copied(*spans: Span) -> tuple[str | Span, ...]:
    """Lines copied one below the other."""
    pieces: list[str | Span] = []
    for span in spans:
        pieces += [span, "\n"]
    return tuple(pieces[:-1])


def transcribe(rng: random.Random, split: Split) -> Made:
    """Page transcription (OCRBench-like): running text, large or small print, freely laid out."""
    page = _blank(rng)
    scale = 2 if rng.random() < 0.3 else 1
    columns, rows = page.columns // scale, page.rows // scale
    full = rng.random()
    if full < 0.3:  # dense: every row, the whole width
        left, width, picked = 0, columns, list(range(rows))
    elif full < 0.5:  # half dense
        left, width = rng.randrange(0, 3), columns - rng.randrange(2, 6)
        top, n = rng.randrange(0, 3), rng.randrange(rows // 2, rows - 2)
        picked = list(range(top, top + n))
    else:
        width = rng.randrange(columns // 2, columns + 1)
        left = rng.randrange(0, columns - width + 1)
        picked = sorted(rng.sample(range(rows), rng.randrange(2, rows * 2 // 3)))
    lines = running_text(rng, split, width, len(picked))
    if full < 0.1:  # a ledger without blanks: up to eight characters a visual token
        lines = [line.replace(" ", rng.choice("/|+=")) for line in lines]
    spans = [
        page.print(left * scale, row * scale, line, scale) for row, line in zip(picked, lines, strict=True)
    ]
    turn = Turn("Read the page.", _copied(*spans), "\n".join(s.text for s in spans))
    return page, [turn]


def forms(rng: random.Random, split: Split) -> Made:
    """Key-value forms (DocVQA-like): which value stands beside a field name."""
    page = _blank(rng)
    scale = 2 if rng.random() < 0.2 else 1
    rows, columns = page.rows // scale, page.columns // scale
    count = rng.randrange(3, min(rows, 12) + 1) if scale == 1 else rng.randrange(3, 6)
    keys = rng.sample(list(FIELDS), count)
    two_columns = scale == 1 and rng.random() < 0.35
    picked = sorted(rng.sample(range(rows), min(count, rows)))
    stop = 0 if two_columns else rng.randrange(0, 3)
    spans: dict[str, Span] = {}
    for i, key in enumerate(keys):
        text = value(rng, split, FIELDS[key])
        left = stop
        row = picked[i]
        if two_columns and i % 2:
            left, row = columns // 2, picked[i - 1]
        room = (columns // 2 - 1 if two_columns else columns - left) - len(key) - 2
        while len(text) > room:
            text = (
                word(rng, split, 5).capitalize() if FIELDS[key] in ("name", "word", "street") else text[:room]
            )
            if scale == 2 and len(text) > room:
                text = text[:room]
        text = text.rstrip()
        if not text:
            continue
        page.print(left * scale, row * scale, f"{key}:", scale)
        spans[key] = page.print((left + len(key) + 2) * scale, row * scale, text, scale)
    asked = rng.sample(list(spans), len(spans))
    return page, [Turn(f"What is the {key}?", (spans[key],), spans[key].text) for key in asked]


def _table(
    rng: random.Random, split: Split, widths: tuple[int, ...]
) -> tuple[Page, list[str], list[str], dict[tuple[str, str], Span], list[list[Span]]]:
    page = _blank(rng)
    n_columns = rng.choice(widths)
    n_rows = rng.randrange(3, 8)
    headers = rng.sample(COLUMNS, n_columns)
    items = rng.sample([i for i in ITEMS if len(i) <= 7], n_rows)
    gap = 2 if n_rows <= 6 and rng.random() < 0.5 else 1
    top = rng.randrange(0, page.rows - (n_rows + 1) * gap)
    starts = [0] + [9 + 7 * i for i in range(n_columns)]
    shift = rng.randrange(0, page.columns - (9 + 7 * n_columns) + 1)
    grid = [[page.print(shift + s, top, t) for s, t in zip(starts, ["Item", *headers], strict=True)]]
    cells: dict[tuple[str, str], Span] = {}
    for r, item in enumerate(items):
        row = top + (r + 1) * gap
        line = [page.print(shift, row, item)]
        for c, header in enumerate(headers):
            cell = page.print(shift + starts[c + 1], row, str(rng.randrange(1, 100)))
            cells[item, header] = cell
            line.append(cell)
        grid.append(line)
    return page, items, headers, cells, grid


def table_markdown(rng: random.Random, split: Split) -> Made:
    """A table to Markdown (the paper's image2markdown)."""
    page, _, _, _, grid = _table(rng, split, (1, 2, 2, 3))
    pieces: list[str | Span] = []
    for r, line in enumerate(grid):
        for cell in line:
            pieces += ["| ", cell, " "]
        pieces.append("|\n")
        if r == 0:
            pieces.append("|" + "---|" * len(line) + "\n")
    pieces[-1] = "|"
    answer = "".join(p if isinstance(p, str) else p.text for p in pieces)
    return page, [Turn("Convert the table to markdown.", tuple(pieces), answer)]


def _difference(a: Span, b: Span) -> tuple[tuple[str | Span, ...], str]:
    """Worked subtraction of the smaller from the larger."""
    high, low = (a, b) if int(a.text) >= int(b.text) else (b, a)
    result = str(int(high.text) - int(low.text))
    return (high, "-", low, "=", result, ". Answer: ", result), result


def table_qa(rng: random.Random, split: Split) -> Made:
    """Table questions (ChartQA-like): lookup, highest."""
    page, items, headers, cells, _ = _table(rng, split, (1, 1, 2))
    turns = []
    for _ in range(4):
        header = rng.choice(headers)
        if rng.random() < 0.7:
            item = rng.choice(items)
            turns.append(Turn(f"{header} of {item}?", (cells[item, header],), cells[item, header].text))
        else:
            peak = max((cells[item, header] for item in items), key=lambda cell: int(cell.text))
            turns.append(Turn(f"Highest {header}?", (peak,), peak.text))
    return page, turns


def chart_qa(rng: random.Random, split: Split) -> Made:
    """Bar-chart questions (ChartQA-like): horizontal bars with labels and values."""
    page = _blank(rng)
    n = rng.randrange(3, 8)
    labels = rng.sample([i for i in ITEMS if len(i) <= 7], n)
    values = rng.sample(ROUND, n)
    title = page.print(rng.randrange(0, 12), 0, rng.choice(COLUMNS))
    gap = 2 if rng.random() < 0.7 else 1
    top = rng.randrange(2, page.rows - n * gap + 1) if page.rows - n * gap + 1 > 2 else 2
    numbers = {}
    shade = rng.uniform(0.35, 0.8)
    for i, (label, number) in enumerate(zip(labels, values, strict=True)):
        row = top + i * gap
        if row >= page.rows:
            break
        page.print(0, row, label)
        length = round(number * 0.2) + 1  # cells: 19 at most
        left, upper = 8 * CELL_WIDTH, row * CELL_HEIGHT
        page.bar(
            left,
            upper + 2,
            left + int(CELL_WIDTH * number * 0.2) + 1,
            upper + CELL_HEIGHT - 2,
            shade,
        )
        numbers[label] = page.print(9 + length, row, str(number))
    labels = list(numbers)
    turns = []
    for _ in range(4):
        kind = rng.choice(("lookup", "lookup", "highest", "difference"))
        if kind == "lookup":
            label = rng.choice(labels)
            turns.append(Turn(f"{title.text} of {label}?", (numbers[label],), numbers[label].text))
        elif kind == "highest":
            peak = max(numbers.values(), key=lambda number: int(number.text))
            turns.append(Turn(f"Highest {title.text}?", (peak,), peak.text))
        else:
            a, b = rng.sample(labels, 2)
            pieces, result = _difference(numbers[a], numbers[b])
            turns.append(Turn(f"{title.text} of {a} and {b}: difference?", pieces, result))
    return page, turns


def dense_pages(rng: random.Random, split: Split) -> Made:
    """Dense multi-tile directories (InfoVQA-like): 2 to 6 tiles and a thumbnail, small print everywhere."""
    wide, high = rng.choice(((2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (3, 2), (2, 3), (2, 2), (2, 1)))
    page = _blank(rng, wide, high)
    column_width = 16 if rng.random() < 0.6 else 32
    slots = [(c, r) for c in range(0, page.columns, column_width) for r in range(page.rows)]
    share = rng.choice((0.25, 0.5, 0.75, 1.0, 1.0))
    slots = sorted(rng.sample(slots, max(6, int(len(slots) * share))))
    keys = rng.sample(ITEMS, min(len(ITEMS), len(slots)))
    at = set(rng.sample(range(len(slots)), len(keys)))
    entries: dict[str, Span] = {}
    waiting = iter(keys)
    for i, (column, row) in enumerate(slots):
        if i in at:
            key = next(waiting)
            room = column_width - len(key) - 3
            text = code(rng, split) if room >= 7 and rng.random() < 0.5 else word(rng, split, min(room, 8))
            page.print(column, row, f"{key}:")
            entries[key] = page.print(column + len(key) + 2, row, text)
        else:  # filler that is never asked for
            page.print(column, row, running_text(rng, split, column_width - 1, 1)[0])
    asked = rng.sample(list(entries), min(len(entries), 6))
    return page, [Turn(f"What is the {key}?", (entries[key],), entries[key].text) for key in asked]


def multiple_choice(rng: random.Random, split: Split) -> Made:
    """Multiple choice (AI2D / ScienceQA-like): a form, four options in the question."""
    page, form = forms(rng, split)
    turns = []
    values = [t.gold for t in form]
    for turn in form[:3]:
        kind = FIELDS[turn.question[len("What is the ") : -1]]
        options = [turn.gold, *[v for v in values if v != turn.gold][:1]]
        while len(options) < 4:
            other = value(rng, split, kind)[: max(4, len(turn.gold))].rstrip()
            if other not in options:
                options.append(other)
        rng.shuffle(options)
        turns.append(Turn(f"{turn.question} {' / '.join(options)}", turn.pieces, turn.gold))
    return page, turns


def sums(rng: random.Random, split: Split) -> Made:
    """Two-step sums with worked reasoning (MathVista-like): a receipt, two or three prices added."""
    page = _blank(rng)
    n = rng.randrange(3, 9)
    items = rng.sample([i for i in ITEMS if len(i) <= 8], n)
    picked = sorted(rng.sample(range(2, page.rows), n))
    left = rng.randrange(0, 12)
    page.print(left, 0, f"{word(rng, split, 8).capitalize()} Shop")
    prices = {}
    for item, row in zip(items, picked, strict=True):
        page.print(left, row, item)
        prices[item] = page.print(left + 10, row, str(rng.choice(ROUND[:5])))
    turns = []
    for _ in range(3):
        chosen = rng.sample(items, 3)
        a, b, c = (prices[i] for i in chosen)
        ab = int(a.text) + int(b.text)
        if rng.random() < 0.5:
            question, result = f"{chosen[0]} plus {chosen[1]}?", str(ab)
            pieces: tuple[str | Span, ...] = (a, "+", b, "=", result, ". Answer: ", result)
        else:
            question, result = f"{chosen[0]} plus {chosen[1]} plus {chosen[2]}?", str(ab + int(c.text))
            pieces = (a, "+", b, f"={ab}, {ab}+", c, "=", result, ". Answer: ", result)
        turns.append(Turn(question, pieces, result))
    return page, turns


TASKS: dict[str, Callable[[random.Random, Split], Made]] = {
    "transcribe": transcribe,
    "forms": forms,
    "table_markdown": table_markdown,
    "table_qa": table_qa,
    "chart_qa": chart_qa,
    "dense_pages": dense_pages,
    "multiple_choice": multiple_choice,
    "sums": sums,
}
METRICS = {
    "transcribe": "cer",
    "forms": "anls",
    "table_markdown": "cer",
    "table_qa": "relaxed",
    "chart_qa": "relaxed",
    "dense_pages": "anls",
    "multiple_choice": "exact",
    "sums": "relaxed",
}
