"""Headers and cells of tables."""

from __future__ import annotations

import random

from fcot_vl.synthesize.documents.content import Content, different
from fcot_vl.synthesize.documents.vocabulary import DAYS, ITEMS

# Header of the first column, and its name in a title.
_ROWS = (
    ("Item", "items"),
    ("Product", "products"),
    ("Name", "members"),
    ("Employee", "employees"),
    ("City", "cities"),
    ("Branch", "branches"),
    ("Year", "years"),
    ("Company", "companies"),
)
_TEXTS = ("Manager", "Town", "Supplier", "Colour", "Status", "Code", "Day")
# Header of a column of numbers: least, most, decimals.
_NUMBERS: dict[str, tuple[int, int, int]] = {
    "Price": (1, 400, 2),
    "Stock": (1, 900, 0),
    "Sold": (5, 5000, 0),
    "Cost": (10, 900, 2),
    "Units": (1, 400, 0),
    "Days": (1, 120, 0),
    "Score": (1, 100, 1),
    "Orders": (10, 4000, 0),
    "Visitors": (100, 90000, 0),
    "Weight (kg)": (1, 250, 1),
    "Length (m)": (1, 90, 2),
    "Share (%)": (1, 95, 1),
    "Revenue": (1000, 99000, 0),
    "Hours": (1, 200, 0),
    "Points": (1, 300, 0),
    "Returns": (1, 80, 0),
    "Rating": (1, 10, 1),
}
_PERIODS = (
    ("2019", "2020", "2021", "2022", "2023"),
    ("Q1", "Q2", "Q3", "Q4"),
    ("Jan", "Feb", "Mar", "Apr", "May"),
)
_COLORS = ("Red", "Blue", "Green", "Black", "White", "Grey", "Yellow", "Brown")
_STATUS = ("Open", "Closed", "Planned", "Sold out", "Active", "Pending")
_SUBJECTS = (
    "Sales",
    "Deliveries",
    "Results",
    "Overview",
    "Stock list",
    "Annual figures",
    "Survey",
    "Statistics",
)


def draw_cells(content: Content, rows: int, columns: int) -> tuple[list[list[str]], list[bool], str]:
    """Draw the table by columns, headers first; return it, True for each column of numbers, and the title."""
    rng = content.rng
    header, what, labels = _labels(content, rows)
    made, numeric = [[header, *labels]], [False]
    subject = rng.choice(_SUBJECTS)
    if header != "Year" and columns > 2 and rng.random() < 0.3:
        low, high, decimals = rng.choice(list(_NUMBERS.values()))
        for period in rng.choice(_PERIODS)[: columns - 1]:
            made.append([period, *_numbers(rng, low, high, decimals, rows)])
            numeric.append(True)
    else:
        texts = rng.sample(_TEXTS, min(columns - 2, rng.choice((0, 0, 1, 1, 2)))) if columns > 2 else []
        heads = [*texts, *rng.sample(list(_NUMBERS), columns - 1 - len(texts))]
        if rng.random() < 0.3:
            rng.shuffle(heads)
        for head in heads:
            column = _texts(content, head, rows) if head in texts else _numbers(rng, *_NUMBERS[head], rows)
            made.append([head, *column])
            numeric.append(head not in texts)
    about = rng.choice((f"{subject} by {header.lower()}", f"{subject} of {content.company()}"))
    about = rng.choice((about, f"{subject}: {content.word().capitalize()} {what}"))
    return made, numeric, about


def _labels(content: Content, count: int) -> tuple[str, str, list[str]]:
    """Draw the header of the first column, the name of its rows in a title, and `count` different labels."""
    rng = content.rng
    header, what = rng.choice(_ROWS)
    if header == "Year":
        first = rng.randint(1985, 2026 - count)
        return header, what, [str(first + i) for i in range(count)]
    if header in ("Item", "Product"):
        return header, what, rng.sample(ITEMS, count) if rng.random() < 0.6 else content.items(count)
    maker = {"Name": content.name, "Employee": content.name, "Company": content.company}.get(
        header, content.city
    )
    return header, what, different(maker, count)


def _numbers(rng: random.Random, low: int, high: int, decimals: int, count: int) -> list[str]:
    """Draw `count` different numbers from `low` to below `high`, as printed."""
    factor = 10**decimals
    drawn = rng.sample(range(low * factor, high * factor), count)
    return [f"{value / factor:.{decimals}f}" for value in drawn]


def _texts(content: Content, header: str, count: int) -> list[str]:
    """Draw `count` cells of a column of text."""
    rng = content.rng
    listed = {"Colour": _COLORS, "Status": _STATUS, "Day": DAYS}.get(header)
    if listed is not None:
        return [rng.choice(listed) for _ in range(count)]
    maker = {"Manager": content.name, "Supplier": content.company, "Code": content.code}.get(
        header, content.city
    )
    return [maker() for _ in range(count)]
