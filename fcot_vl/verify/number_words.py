"""Parse spelled-out numbers: English words up to trillions, and Chinese numerals."""

from __future__ import annotations

import re
from fractions import Fraction

SMALL_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
ORDINAL_WORDS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
SMALL = {word: value for value, word in enumerate(SMALL_WORDS.split())}
TENS = {
    word: 10 * (at + 2)
    for at, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"])
}
BIG = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
ORDINALS = {word: at + 1 for at, word in enumerate(ORDINAL_WORDS.split())}
TOKEN = re.compile(r"[\s-]*([A-Za-z]+)")
DIGITS = {char: at for at, char in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
PLACES = {"十": 10, "百": 100, "千": 1000}
LARGE = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
NUMERAL = "[零〇一二两兩三四五六七八九十百千万萬亿億]"
COUNTED = (
    "个|個|人|次|年|月|日|天|元|块|岁|本|只|台|辆|张|件|名|位|家|份|种|条|座|米|公里|厘米|千克|公斤|克|吨|"
    "小时|分钟|秒|页|行|列|号"
)


def leading_words(text: str) -> tuple[int, str] | None:
    """Parse a number spelled at the start of an English text, and return it with the rest of the text.

    `twenty-one apples` gives (21, " apples"). An ordinal such as `third` is only read if it is the whole text. Return
    None if there is no number.
    """
    if (alone := ORDINALS.get(text.strip().casefold())) is not None:
        return alone, ""
    total = group = 0
    last, at, seen = "", 0, False
    if re.match(r"an?\s+(?:hundred|thousand|million|billion)\b", text, re.IGNORECASE):
        group, at, last = 1, text.index(" "), "small"
    while found := TOKEN.match(text, at):
        word = found[1].casefold()
        if word == "and" and seen and last in ("hundred", "big"):
            following = TOKEN.match(text, found.end())
            if following is None or following[1].casefold() not in SMALL | TENS:
                break
            at = found.end()
            continue
        if word in TENS and last not in ("small", "tens"):
            group, last = group + TENS[word], "tens"
        elif word in SMALL and (last not in ("small", "tens") or (last == "tens" and 0 < SMALL[word] < 10)):
            group, last = group + SMALL[word], "small"
        elif word == "hundred" and last == "small" and 0 < group < 100:
            group, last = group * 100, "hundred"
        elif word in BIG and last in ("small", "tens", "hundred") and group:
            total, group, last = total + group * BIG[word], 0, "big"
        else:
            break
        at, seen = found.end(), True
    return (total + group, text[at:]) if seen else None


def chinese_number(text: str) -> tuple[Fraction, int | None, str] | None:
    """Parse a text that is a Chinese numeral with an optional measure word.

    Returns:
        Value, number of decimals (None for a fraction), and the rest of the text; None if the text is not a numeral.
    """
    if found := re.fullmatch(rf"({NUMERAL}+|\d+)分之({NUMERAL}+|\d+)", text):
        under, over = (_chinese(part) for part in found.groups())
        if under is None or over is None or under == 0:
            return None
        return Fraction(over, under), 2 if under == 100 else None, ""
    if found := re.fullmatch(rf"(第?)({NUMERAL}{{1,20}}|(?<=第)\d{{1,6}})({COUNTED})?(?:\s*)", text):
        value = _chinese(found[2])
        return None if value is None else (Fraction(value), 0, found[3] or "")
    return None


def _chinese(text: str) -> int | None:
    if text.isdecimal():
        return int(text)
    if all(char in DIGITS for char in text):  # 二〇二四: digit by digit
        return int("".join(str(DIGITS[char]) for char in text)) if len(text) == 1 or len(text) == 4 else None
    total = section = 0
    digit: int | None = None
    for char in text:
        if char in DIGITS:
            if digit:
                return None
            digit = DIGITS[char]
        elif char in PLACES:
            section += (1 if digit is None else digit) * PLACES[char]
            digit = None
        else:
            total = (total + section + (digit or 0)) * LARGE[char]
            section, digit = 0, None
    return total + section + (digit or 0)
