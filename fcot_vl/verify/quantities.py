"""Parse numbers with percent signs, currencies, units and number words as exact fractions.

A quantity must span a cleaned string from start to end: `42 apples` is one, `42 or 43` is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from fcot_vl.verify.number_words import chinese_number, leading_words
from fcot_vl.verify.units import CASED, CURRENCY, SCALES, Units, read_unit

SIGNIFICANT = 3  # minimum digits for a decimal to equal a non-terminating fraction, such as 0.333 for 1/3
GROUPED = r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|[1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?"
SPACED = r"[1-9]\d{0,2}(?: \d{3})+(?:[.,]\d+)?|[1-9]\d{0,2}(?:'\d{3})+(?:[.,]\d+)?"
EUROPEAN = r"[1-9]\d{0,2}(?:\.\d{3}){2,}(?:,\d+)?|[1-9]\d{0,2}(?:\.\d{3})+,\d+"
COMMA = r"\d+,\d{1,2}|\d+,\d{4,}|0,\d+"
END = r"(?![\d])(?![.,']\d)"
MIXED = re.compile(r"(?:(\d{1,9})\s+)?(\d{1,9})\s*/\s*(\d{1,9})" + END + r"(?!\s*/)")
WRITTEN = re.compile(
    rf"(?:(?P<grouped>(?:{GROUPED}){END})|(?P<spaced>(?:{SPACED}){END})|(?P<european>(?:{EUROPEAN}){END})"
    rf"|(?P<comma>(?:{COMMA}){END})|(?P<simple>(?:\d+(?:\.\d+)?|\.\d+){END}))\.?"
    r"(?:[eE](?P<e>[+-]?\d{1,3})(?!\d)|\s*[×x*]\s*10\s*(?:\^|\*\*)\s*[({]?\s*(?P<ten>[+-]?\d{1,3})\s*[)}]?(?!\d))?"
)
POWER = re.compile(r"10\s*\^\s*[({]?\s*([+-]?\d{1,3})\s*[)}]?(?!\d)")
SIGN = re.compile(r"(?:\+|-|minus\s+|negative\s+)\s*", re.IGNORECASE)
ABOUT = re.compile(
    r"(?:(?:approximately|approx\.?|about|around|roughly|exactly|only|just|circa|ca\.|(?:a\s+)?total\s+of)\s+|[~≈#]\s*)+",
    re.IGNORECASE,
)
PERCENT = re.compile(r"\s*(?:%|(?:percent|per\s+cent|pct)\b)(?!\s*points?)", re.IGNORECASE)
ORDINAL = re.compile(r"(\d{1,6})(?:st|nd|rd|th)(?=$|\s+place$)", re.IGNORECASE)
DOLLARS = re.compile(r"^(US|CA|AU|HK|NZ|NT|MX|SG|A|C|R|S)\s+\$")
STOP = re.compile(
    r"\b(?:or|and|is|are|was|were|too|no|not|n't|but|than|more|less|fewer|higher|lower|greater|smaller|larger|times|out|short|above|below|over"
    r"|under|if|plus|minus|except|beyond|am|pm|a\.m|p\.m|ago|to|versus|vs|hundred|thousand|million|billion|trillion|dozen"
    r"|half|halves|thirds?|quarters?|instead|rather|maybe|perhaps|wrong|incorrect|false|squared|cubed)\b|n't\b|[?≠<>≥≤=+*/^×±:\d]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Quantity:
    """Number with its percent sign, scale, units and noun.

    Attributes:
        value: Value, with percent signs and words such as `million` applied.
        decimals: Number of digits after the point of `value`; None for a fraction, which is exact.
        percent: True if a percent sign was written.
        scale: Factor of the word or suffix that multiplied it (`million`), or 1.
        units: Possible dimensions of a known unit, each with its factor; empty without a unit.
        noun: Other counted noun, in lower case, without a plural s.
    """

    value: Fraction
    decimals: int | None = 0
    percent: bool = False
    scale: int = 1
    units: Units = frozenset()
    noun: str = ""


def read_quantity(text: str, words: int = 3) -> Quantity | None:
    """Parse a cleaned string as a quantity. Return None if it is not one.

    Args:
        text: One line, as returned by `clean`.
        words: Maximum number of words after the number and its unit, for example counted nouns.
    """
    text = text.strip()
    if not text or len(text) > 200 or is_code(text) or re.fullmatch(r"'?\d*\d{2}0s", text):
        return None
    accounting = re.fullmatch(r"-?\(\s*([^()]*\d[^()]*)\)\s*(%?)", text)
    if accounting:
        if text.startswith("-") or re.search(r"\d,\d(?!\d\d(?!\d))", text):
            return None
        found = read_quantity(accounting[1] + accounting[2], 0)
        return None if found is None or found.value < 0 else replace(found, value=-found.value)
    return _compound(text) or _single(text, words)


def is_code(text: str) -> bool:
    """Return True if a string has digits with a leading zero (`007`): a code, compared as text, never by value."""
    return re.match(r"[-+]?0\d", text.strip()) is not None


def _single(text: str, words: int) -> Quantity | None:
    text = ABOUT.sub("", text, count=1) if ABOUT.match(text) else text
    sign, text = _sign(text)
    currency, text = _currency(DOLLARS.sub(r"\1$", text))
    more, rest = _currency(text)
    if currency & more:  # "USD $5"
        currency, text = currency & more, rest
    if currency and sign == 1:
        sign, text = _sign(text)
    number = _number(text)
    if number is None:
        return None
    value, decimals, rest, spelled = number
    scale, rest = _scale(rest, bool(currency))
    value *= scale
    decimals = None if decimals is None else max(0, decimals - len(str(scale)) + 1)
    percent = PERCENT.match(rest)
    if percent:
        value, decimals, rest = value / 100, None if decimals is None else decimals + 2, rest[percent.end() :]
        if re.match(r"\s+of\s", rest):
            rest = "" if STOP.search(rest) is None and len(rest.split()) <= words + 3 else "?"
    if sign * value < 0 and currency == frozenset() and text.startswith("-"):
        return None
    units, rest = read_unit(rest)
    if re.match(r"[A-Za-z_]", rest) and not units and not spelled:
        return None  # 42nd, 7up
    if currency and units and not currency & units:
        return None
    rest = rest.strip().rstrip(".")
    if STOP.search(rest) or len(rest.split()) > words or not re.fullmatch(r"[\w\s.°$€£'()-]*", rest):
        return None
    if rest and re.match(r"[-(.']", rest):
        return None
    if spelled and (rest != rest.lower() or leading_words(rest) is not None):
        return None
    noun = re.sub(r"(?<=\w{2})s$", "", rest.casefold())
    return Quantity(
        sign * value, decimals, percent is not None, scale, currency & units or currency or units, noun
    )


def _currency(text: str) -> tuple[Units, str]:
    """Read a currency before a number, and return it with the rest; without one, an empty set and the text."""
    for name, units in CURRENCY:
        head, rest = text[: len(name)], text[len(name) :]
        if name != (head if name in CASED else head.casefold()):
            continue
        if name.isalpha():
            if rest[:1].isalpha() or (len(name) == 1 and not re.match(r"\s|\d+[.,]\d\d$", rest)):
                continue  # "R50" alone may be a code
            rest = rest.removeprefix(".")  # "Rs. 5"
        return units, rest.strip()
    return frozenset(), text


def _sign(text: str) -> tuple[int, str]:
    found = SIGN.match(text)
    if found is None:
        return 1, text
    return (1 if found[0].startswith("+") else -1), text[found.end() :]


def _number(text: str) -> tuple[Fraction, int | None, str, bool] | None:
    """Parse the number at the start of a text.

    Returns:
        Value, number of decimals (None for a fraction), the rest of the text, and True if the number was spelled out.
    """
    if found := ORDINAL.match(text):
        return Fraction(found[1]), 0, text[found.end() :], False
    if found := MIXED.match(text):
        whole, over, under = (int(part or 0) for part in found.groups())
        if under == 0 or (found[1] and over >= under):
            return None
        return whole + Fraction(over, under), None, text[found.end() :], False
    if found := POWER.match(text):
        return Fraction(10) ** int(found[1]), 0, text[found.end() :], False
    if found := WRITTEN.match(text):
        return *_written(found), text[found.end() :], False
    if words := chinese_number(text):
        return words[0], words[1], words[2], False
    if spelled := leading_words(text):
        return Fraction(spelled[0]), 0, spelled[1], True
    return None


def _written(found: re.Match[str]) -> tuple[Fraction, int]:
    kind = next(name for name in ("grouped", "spaced", "european", "comma", "simple") if found[name])
    digits = found[kind]
    if kind == "grouped":
        digits = digits.replace(",", "")
    elif kind == "european":
        digits = digits.replace(".", "").replace(",", ".")
    elif kind in ("spaced", "comma"):
        digits = re.sub(r"[ ']", "", digits).replace(",", ".")
    power = int(found["e"] or found["ten"] or 0)
    decimals = len(digits.partition(".")[2])
    return Fraction(digits) * Fraction(10) ** power, max(0, decimals - power)


def _scale(rest: str, currency: bool) -> tuple[int, str]:
    for name, (factor, attached) in SCALES.items():
        pattern = rf"{re.escape(name)}(?![A-Za-z])" if attached else rf"\s*-?{re.escape(name)}(?![A-Za-z])"
        flags = 0 if attached else re.IGNORECASE
        if found := re.match(pattern, rest, flags):
            return factor, rest[found.end() :]
    if currency and (found := re.match(r"\s?m(?![A-Za-z])", rest)):
        return 10**6, rest[found.end() :]
    return 1, rest


def _compound(text: str) -> Quantity | None:
    """Parse `1 hour 30 minutes` or `5 ft 3 in` as the sum. The units must have one dimension, in falling order."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)(?:\s*,?\s*(?:and\s+)?)", text)
    if len(parts) < 2 or re.sub(r"[\d.\s,]|and\b", "", text) != "".join(unit for _, unit in parts):
        return None
    total, previous, dimension = Fraction(0), None, ""
    for number, name in parts:
        units, rest = read_unit(" " + name)
        if len(units) != 1 or rest.strip():
            return None
        ((kind, factor),) = units
        if previous is not None and (kind != dimension or factor >= previous):
            return None
        total, previous, dimension = total + Fraction(number) * factor, factor, kind
    return Quantity(total, None, units=frozenset({(dimension, Fraction(1))}))


def same_quantity(a: Quantity, b: Quantity, question: str = "") -> bool:
    """Return True if two quantities are the same.

    Values are compared exactly, after converting units of one dimension. A unit, a currency or a noun that only one
    side has is ignored; two different ones make the quantities different. A missing percent sign or `million` is
    accepted only if the question asks for percent or millions. A non-terminating fraction equals its decimal rounding
    to three or more significant digits.
    """
    if a.noun and b.noun and a.noun != b.noun:
        return False
    if a.units and b.units:
        for dimension, factor in a.units:
            for other, its_factor in b.units:
                if dimension == other and _equal(_times(a, factor), _times(b, its_factor)):
                    return True
        return False
    if (a.units and b.noun) or (b.units and a.noun):
        return False
    asked = question.casefold()
    if a.percent != b.percent:
        bare, signed = (b, a) if a.percent else (a, b)
        if _equal(a, b):
            return True
        percent_asked = re.search(r"percent|per cent|(?:what|which|in) ?%|百分|占比", asked) is not None
        return percent_asked and _equal(bare, _times(signed, Fraction(100)))
    if _equal(a, b):
        return True
    if (a.scale == 1) != (b.scale == 1):
        scaled, bare = (a, b) if a.scale != 1 else (b, a)
        names = [name for name, (factor, letter) in SCALES.items() if factor == scaled.scale and not letter]
        return any(name in asked for name in names) and _equal(
            _times(scaled, Fraction(1, scaled.scale)), bare
        )
    return False


def _times(quantity: Quantity, factor: Fraction) -> Quantity:
    decimals = quantity.decimals
    if decimals is not None and factor != 1:
        shift = len(str(factor.numerator // factor.denominator or 1)) - 1
        decimals = max(0, decimals - shift)
    return replace(quantity, value=quantity.value * factor, decimals=decimals)


def _equal(a: Quantity, b: Quantity) -> bool:
    if a.value == b.value:
        return True
    for exact, rounded in ((a, b), (b, a)):
        if exact.decimals is None and rounded.decimals and not _ends(exact.value):
            step = Fraction(1, 10**rounded.decimals)
            significant = len(str(abs(round(rounded.value / step))))
            if significant >= SIGNIFICANT and abs(exact.value - rounded.value) <= step / 2:
                return True
    noise = max(a.decimals or 0, b.decimals or 0) >= 12  # a printed float such as 2.9999999999999996
    return noise and abs(a.value - b.value) <= Fraction(1, 10**10) * max(abs(a.value), abs(b.value))


def _ends(value: Fraction) -> bool:
    """Return True if a fraction has finitely many decimals."""
    under = value.denominator
    for prime in (2, 5):
        while under % prime == 0:
            under //= prime
    return under == 1
