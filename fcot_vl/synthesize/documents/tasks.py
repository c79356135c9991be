"""Questions about pages, their answers, and the part of the page that is shown.

Ten tasks after the paper's benchmarks (section 4), and one for the stress pages. A task names the kinds of pages that
it asks about and makes the turns of a conversation. An answer is a `Mark`, which has the position of each character on
the page.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fcot_vl.synthesize.documents.content import Content
from fcot_vl.synthesize.documents.page import Mark, Page
from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.capture import Points

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Turn:
    """A question, the answer to train on, and the accepted answer: the end of a worked answer, else all of it."""

    question: str
    answer: Mark
    gold: str


@dataclass(frozen=True)
class Asked:
    """The turns about a page, and the box of it that is shown, in pixels; None for the whole page."""

    turns: list[Turn]
    box: Box | None = None


Ask = Callable[[random.Random, Split, Page], Asked | None]


@dataclass(frozen=True)
class Task:
    """A task: its metric, the kinds of its pages, and a function that asks, or returns None for an unsuitable page."""

    metric: str
    kinds: tuple[str, ...]
    ask: Ask


def _one_of(rng: random.Random, split: Split, *wordings: str) -> str:
    """Return the first wording in validation and test. In training, draw one, mostly the first."""
    return wordings[0] if split != "train" or rng.random() < 0.6 else rng.choice(wordings)


def stacked(lines: list[Mark]) -> Mark:
    """Join lines into one text, one below the other."""
    text = lines[0]
    for line in lines[1:]:
        text = text + Mark.plain("\n") + line
    return text


def box_around(lines: list[Mark], points: Points, size: tuple[int, int], side: float, above: float) -> Box:
    """Return the box around `lines` in an image of `size`, with margins in units of the largest type.

    Args:
        points: Middle of every character by the numbers in the marks' ids.
        side: Margin on the left and on the right.
        above: Margin above and below.
    """
    inked = points[[i for line in lines for i in line.ids if i >= 0]]
    margin = np.array([side, above]) * max(line.size for line in lines)
    left, top = inked.min(0) - margin
    right, bottom = inked.max(0) + margin
    return (max(0, round(left)), max(0, round(top)), min(size[0], round(right)), min(size[1], round(bottom)))


def _box(rng: random.Random, page: Page, lines: list[Mark]) -> Box:
    """Return a box around `lines`, as somebody would cut them out."""
    side, above = rng.uniform(0.45, 1.0), rng.uniform(0.65, 0.85)
    return box_around(lines, page.canvas.points, page.canvas.size, side, above)


def _read(rng: random.Random, split: Split) -> str:
    return _one_of(rng, split, "Read the text.", "What does it say?", "Transcribe the text.")


def lines(rng: random.Random, split: Split, page: Page) -> Asked | None:
    """Transcribe one line, cut out of the page (OCRBench's text recognition)."""
    long = [line for line in page.lines if len(line.text) >= 2]
    if not long:
        return None
    line = rng.choice(long)
    return Asked([Turn(_read(rng, split), line, line.text)], _box(rng, page, [line]))


def blocks(rng: random.Random, split: Split, page: Page) -> Asked | None:
    """Transcribe 2 to 10 lines that follow each other, cut out of the page."""
    blocks = [block for block in page.blocks if len(block) >= 2]
    if not blocks:
        return None
    block = rng.choice(blocks)
    count = rng.randint(2, min(10, len(block)))
    first = rng.randrange(len(block) - count + 1)
    chosen = block[first : first + count]
    text = stacked(chosen)
    return Asked([Turn(_read(rng, split), text, text.text)], _box(rng, page, chosen))


def pages(rng: random.Random, split: Split, page: Page) -> Asked | None:
    """Transcribe a whole page of at most 500 characters."""
    text = stacked(page.lines)
    if len(text.text) > 500:
        return None
    question = _one_of(rng, split, "Read the page.", "Transcribe the page.", "Read all text on this page.")
    return Asked([Turn(question, text, text.text)])


def forms(rng: random.Random, split: Split, page: Page) -> Asked | None:
    """Ask for values by name (DocVQA)."""
    if not page.fields:
        return None
    turns: list[Turn] = []
    for name in rng.sample(list(page.fields), len(page.fields))[:6]:
        question = _one_of(rng, split, f"What is the {name}?", f"{name.capitalize()}?", f"Give the {name}.")
        turns.append(Turn(question, page.fields[name], page.fields[name].text))
    return Asked(turns)


def _number(mark: Mark) -> float | None:
    """Return the number in `mark`; None where it has other text."""
    text = mark.text.strip().rstrip("%").lstrip("$").replace(",", "")
    try:
        return float(text)
    except ValueError:
        return None


def table_qa(rng: random.Random, split: Split, page: Page) -> Asked | None:
    """Ask for cells and highest values (ChartQA's tables, TableVQA)."""
    if len(page.table) < 3:
        return None
    header, *rows = page.table
    turns: list[Turn] = []
    for _ in range(5):
        column = rng.randrange(1, len(header))
        numbers = [_number(row[column]) for row in rows]
        plain = [number for number in numbers if number is not None]
        if rng.random() < 0.3 and len(plain) == len(rows) and len(set(plain)) == len(plain):
            cell = rows[plain.index(max(plain))][column]
            question = f"What is the highest {header[column].text}?"
        else:
            row = rng.choice(rows)
            cell, question = row[column], f"What is the {header[column].text} of {row[0].text}?"
        if cell.text and all(question != turn.question for turn in turns):
            turns.append(Turn(question, cell, cell.text))
    return Asked(turns) if turns else None


def table_markdown(rng: random.Random, split: Split, page: Page) -> Asked | None:
    """Convert a table to Markdown (the paper's image2markdown), up to 600 characters."""
    if len(page.table) < 3:
        return None
    text = Mark.plain("")
    for number, row in enumerate(page.table):
        text = text + Mark.plain("\n" if number else "")
        for cell in row:
            text = text + Mark.plain("| ") + cell + Mark.plain(" ")
        text = text + Mark.plain("|")
        if number == 0:
            text = text + Mark.plain("\n|" + "---|" * len(row))
    if len(text.text) > 600:
        return None
    question = _one_of(rng, split, "Convert the table to Markdown.", "Write this table as Markdown.")
    return Asked([Turn(question, text, text.text)])


def _difference(a: Mark, b: Mark) -> tuple[Mark, str] | None:
    """Write the difference of two whole numbers as a worked answer, and its result; None for other numbers."""
    if not (a.text.isdigit() and b.text.isdigit()):
        return None
    high, low = (a, b) if int(a.text) >= int(b.text) else (b, a)
    result = str(int(high.text) - int(low.text))
    return high + Mark.plain(" - ") + low + Mark.plain(f" = {result}. Answer: {result}"), result


def chart_qa(rng: random.Random, split: Split, page: Page) -> Asked | None:
    """Ask for a chart's values, its highest one, and differences of two (ChartQA)."""
    if len(page.values) < 3:
        return None
    turns: list[Turn] = []
    numbers = {label: _number(mark) for label, mark in page.values.items()}
    for _ in range(5):
        draw = rng.random()
        label, other = rng.sample(list(page.values), 2)
        if draw < 0.55:
            question, answer = f"What is the {page.subject or 'value'} of {label}?", page.values[label]
            gold = answer.text
        elif draw < 0.8 and None not in numbers.values():
            top = max(page.values, key=lambda label: numbers[label] or 0.0)
            question, answer = "What is the highest value?", page.values[top]
            gold = answer.text
        else:
            worked = _difference(page.values[label], page.values[other])
            if worked is None:
                continue
            question, (answer, gold) = f"What is the difference between {label} and {other}?", worked
        if all(question != turn.question for turn in turns):
            turns.append(Turn(question, answer, gold))
    return Asked(turns) if turns else None


def infographics(rng: random.Random, split: Split, page: Page) -> Asked | None:
    """Ask for the number of a caption (InfographicVQA)."""
    if not page.values:
        return None
    labels = rng.sample(list(page.values), min(5, len(page.values)))
    turns = []
    for label in labels:
        question = _one_of(rng, split, f"Which number is given for {label}?", f"{label}?")
        turns.append(Turn(question, page.values[label], page.values[label].text))
    return Asked(turns)


def multiple_choice(rng: random.Random, split: Split, page: Page) -> Asked | None:
    """Ask for a value among four that the question lists (AI2D, ScienceQA)."""
    asked = forms(rng, split, page)
    if asked is None:
        return None
    content = Content(rng, split)
    others = [mark.text for mark in page.fields.values()]
    turns: list[Turn] = []
    for turn in asked.turns[:3]:
        wrong = [text for text in others if text != turn.gold and len(text) <= 24]
        options = [turn.gold, *rng.sample(wrong, min(2, len(wrong)))]
        while len(options) < 4:
            options.append(_like(rng, content, turn.gold))
        if len(set(options)) == 4 and len(turn.gold) <= 30:
            rng.shuffle(options)
            turns.append(Turn(f"{turn.question} {' / '.join(options)}", turn.answer, turn.gold))
    return Asked(turns) if turns else None


def _like(rng: random.Random, content: Content, text: str) -> str:
    """Draw a wrong answer that looks like `text`, with other digits or words."""
    if any(character.isdigit() for character in text):
        return "".join(rng.choice("0123456789") if character.isdigit() else character for character in text)
    made = [content.word(max(3, len(word))) for word in text.split()]
    return " ".join(made).title() if not text.isupper() else " ".join(made).upper()


def sums(rng: random.Random, split: Split, page: Page) -> Asked | None:
    """Ask for the sum of two or three prices, with the steps in the answer (MathVista)."""
    if len(page.prices) < 3:
        return None
    turns = []
    for _ in range(3):
        names = rng.sample(list(page.prices), rng.choice((2, 2, 3)))
        marks = [page.prices[name] for name in names]
        answer, total = marks[0], int(marks[0].text)
        for number, mark in enumerate(marks[1:]):
            if number:  # the sum so far begins the next step
                answer = answer + Mark.plain(f", {total}")
            total += int(mark.text)
            answer = answer + Mark.plain(" + ") + mark + Mark.plain(f" = {total}")
        question = f"What do {', '.join(names[:-1])} and {names[-1]} cost together?"
        turns.append(Turn(question, answer + Mark.plain(f". Answer: {total}"), str(total)))
    return Asked(turns)


def dense(rng: random.Random, split: Split, page: Page) -> Asked | None:
    """Ask for an entry on a page of small print (the stress part)."""
    if not page.fields:
        return None
    names = rng.sample(list(page.fields), min(6, len(page.fields)))
    return Asked(
        [Turn(f"What is listed for {name}?", page.fields[name], page.fields[name].text) for name in names]
    )


_PRINTED = ("receipt", "letter", "invoice", "table", "slide", "sign")
_FIELDS = ("receipt", "invoice", "letter", "sign", "invoice", "letter")
TASKS: dict[str, Task] = {
    "lines": Task("cer", (*_PRINTED, "receipt", "chart"), lines),
    "blocks": Task("cer", ("letter", "letter", "receipt", "invoice", "sign", "slide"), blocks),
    "pages": Task("cer", ("receipt", "letter", "sign", "slide", "invoice"), pages),
    "forms": Task("anls", _FIELDS, forms),
    "table_qa": Task("relaxed", ("table",), table_qa),
    "table_markdown": Task("cer", ("table",), table_markdown),
    "chart_qa": Task("relaxed", ("chart",), chart_qa),
    "infographics": Task("anls", ("slide",), infographics),
    "multiple_choice": Task("exact", _FIELDS, multiple_choice),
    "sums": Task("relaxed", ("receipt",), sums),
}
STRESS: dict[str, Task] = {"dense": Task("anls", ("directory",), dense)}
