"""Compare two bare values by kind: text, dates, times, quantities, ratios, lists."""

from __future__ import annotations

import re
from collections import Counter

from fcot_vl.verify.dates import read_date, read_time, same_date
from fcot_vl.verify.maths import same_mathematics
from fcot_vl.verify.quantities import is_code, read_quantity, same_quantity
from fcot_vl.verify.text import clean, plain, unwrap

LONGEST_TEXT = 2_000  # maximum characters of an answer for comparisons other than equality
TRUE, FALSE = {"yes", "true", "是", "是的", "对", "正确"}, {"no", "false", "否", "不是", "不对", "错", "错误"}
ORDERED = re.compile(
    r"\b(?:order|sort(?:ed)?|rank(?:ed|ing)?|ascending|descending|sequence)\b|顺序|排序|排列", re.IGNORECASE
)
BY_TEXT = re.compile(
    r"\b(?:version|section|chapter|clause|serial|phone|zip|postal|postcode)\b|版本|章节", re.IGNORECASE
)
SEPARATOR = re.compile(
    r"\s*(?:;|、|,\s+and\s+|,\s+|,(?!\d{3}(?!\d))|\s+and\s+|\s+&\s+|\n|和|及)\s*", re.IGNORECASE
)
LONGEST_LIST = 50


def same_value(a: str, b: str, question: str = "") -> bool:
    """Return True if two bare values are the same: equal text, dates, quantities, ratios, lists or mathematics."""
    if len(a) > LONGEST_TEXT or len(b) > LONGEST_TEXT:
        return a == b
    x, y = plain(a), plain(b)
    if not x or not y:
        return a.strip() == b.strip() and bool(a.strip())
    a, b = unwrap(clean(a)), unwrap(clean(b))
    if x == y:
        return a.casefold() != b.casefold() or not _case_matters(a, b)
    if x in TRUE | FALSE and y in TRUE | FALSE:
        return (x in TRUE) == (y in TRUE)
    if is_code(a) or is_code(b):
        days, times = (read_date(a), read_date(b)), (read_time(a), read_time(b))
        return bool(
            (days[0] and days[1] and same_date(days[0], days[1])) or (times[0] and times[0] == times[1])
        )
    dates = read_date(a), read_date(b)
    if dates[0] and dates[1]:
        return same_date(dates[0], dates[1])
    times = read_time(a), read_time(b)
    if times[0] and times[1]:
        return times[0] == times[1]
    if BY_TEXT.search(question):
        return False
    quantities = read_quantity(a), read_quantity(b)
    if quantities[0] and quantities[1]:
        if same_quantity(quantities[0], quantities[1], question):
            return True
        return _same_list(a, b, question) if "," in a + b else False
    if (ratio := _same_ratio(a, b, question)) is not None:
        return ratio
    if _same_list(a, b, question):
        return True
    return same_mathematics(a, b)


def _case_matters(a: str, b: str) -> bool:
    """Return True if two quantities that differ only in case are different, such as 5 mW and 5 MW."""
    first, second = read_quantity(a), read_quantity(b)
    return first is not None and second is not None and not same_quantity(first, second)


def _same_ratio(a: str, b: str, question: str) -> bool | None:
    """Compare ratios such as `6:8` and `3:4`. Return None if neither value is a ratio.

    A ratio equals a fraction only if the question asks for a ratio.
    """
    ratios = [re.fullmatch(r"(\d{1,9})\s*:\s*(\d{1,9})", text) for text in (a, b)]
    if ratios[0] and ratios[1]:
        return (
            int(ratios[0][1]) * int(ratios[1][2]) == int(ratios[1][1]) * int(ratios[0][2])
            and ratios[0][2].strip("0") != ""
        )
    for ratio, other in ((ratios[0], b), (ratios[1], a)):
        if ratio:
            quantity = read_quantity(other)
            if (
                not re.search(r"\bratio\b|比例|比值", question, re.IGNORECASE)
                or not int(ratio[2])
                or quantity is None
            ):
                return False
            return same_quantity(quantity, read_quantity(f"{ratio[1]}/{ratio[2]}") or quantity, question)
    return None


def _items(text: str) -> tuple[str, list[str]]:
    """Return the opening bracket of a list (if any) and its items. A text with one item is not a list."""
    bracket = ""
    if len(text) > 2 and (text[0], text[-1]) in {("(", ")"), ("[", "]"), ("{", "}")}:
        bracket, text = text[0], text[1:-1]
        parts = re.split(r"\s*[,;、]\s*", text)
    else:
        parts = SEPARATOR.split(re.sub(r",\s+and\s+", ", ", text, flags=re.IGNORECASE))
    return bracket, [unwrap(part) for part in parts if part.strip()]


def _same_list(a: str, b: str, question: str) -> bool:
    """Return True if both lists have the same items, one to one.

    The order matters in brackets, or if the question asks for it.
    """
    (opened, first), (its, second) = _items(a), _items(b)
    if len(first) != len(second) or not 2 <= len(first) <= LONGEST_LIST or (opened and its and opened != its):
        return False
    if any(read_date(text) for text in (a, b)):
        return False
    if "(" in opened + its or "[" in opened + its or ORDERED.search(question):
        return all(_same_item(x, y, question) for x, y in zip(first, second, strict=True))
    if Counter(map(plain, first)) == Counter(map(plain, second)):
        return True
    left = list(second)
    for item in first:
        partner = next((at for at, other in enumerate(left) if _same_item(item, other, question)), None)
        if partner is None:
            return False
        left.pop(partner)
    return True


def _same_item(a: str, b: str, question: str) -> bool:
    if any(len(_items(text)[1]) > 1 for text in (a, b)):
        return plain(a) == plain(b)
    return same_value(a, b, question)
