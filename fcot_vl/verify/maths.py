"""Compare mathematics that the other rules do not cover, with math-verify if it is installed (extra `cot`).

math-verify's own time limit uses signals, which are only available in the main thread. It is therefore off, and the
input is limited instead: only short expressions of known commands, small numbers and small plain exponents are passed
to it. Source: https://github.com/huggingface/Math-Verify.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

LONGEST = 120  # maximum number of characters
COMMANDS = re.compile(
    r"frac|dfrac|tfrac|sqrt|pi|cdot|times|div|left|right|pm|sin|cos|tan|log|ln|infty|cup|le|ge|leq|geq|lt|gt|in|mathbb|"
    r"alpha|beta|gamma|theta|lambda|mu|phi|omega|circ|angle|triangle"
)
FUNCTIONS = {"sin", "cos", "tan", "log", "ln", "sqrt", "pi"}
ALLOWED = re.compile(r"[0-9A-Za-z\s+\-*/=^_(){}\[\],.<>|\\√π∞±×÷]*")
RELATIVE = 1e-6  # largest difference of two numbers, as a share of the larger one
POWER = re.compile(r"\^\s*(?:\{\s*-?\w{1,2}(?:\s*/\s*\d)?\s*\}|\w|-?\d)(?!\s*\^)")


def looks_like_mathematics(text: str) -> bool:
    """Return True if a string is an expression that is useful and safe to compare symbolically."""
    if not text or len(text) > LONGEST or not ALLOWED.fullmatch(text):
        return False
    commands = re.findall(r"\\([A-Za-z]+)", text)
    if not all(map(COMMANDS.fullmatch, commands)) or "\\\\" in text:
        return False
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\\[A-Za-z]+", " ", text))
    if any(word not in FUNCTIONS for word in words) or re.search(r"\d{8}", text):
        return False
    if text.count("^") > 4 or text.count("^") != len(POWER.findall(text)):
        return False
    symbols = re.search(r"[\^√π]|\\[A-Za-z]{2}|\bsqrt\b|\bpi\b", text)
    algebra = re.search(r"(?<![A-Za-z])[a-z](?![A-Za-z])", text) and re.search(r"[+*=^<>/-]", text)
    return bool(symbols or algebra)


def same_mathematics(a: str, b: str) -> bool:
    """Return True if two expressions are equal. False if math-verify is not installed or cannot read one of them."""
    if not (looks_like_mathematics(a) or looks_like_mathematics(b)):
        return False
    for text in (a, b):
        if not looks_like_mathematics(text) and not re.fullmatch(r"-?\d{1,7}(?:\.\d{1,7}|/\d{1,7})?", text):
            return False
    named = [re.match(r"([A-Za-z])\s*=(?!.*=)", text) for text in (a, b)]
    if named[0] and named[1] and named[0][1] != named[1][1]:
        return False  # x = 3 and y = 3
    try:
        from math_verify import parse
        from math_verify import verify as compare
    except ImportError:
        return False
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    try:
        gold, target = (
            parse(f"${_latex(text)}$", parsing_timeout=None, raise_on_error=False) for text in (a, b)
        )
        if not gold or not target:
            return False
        if not _numbers_agree(gold, target):
            return False
        forward = compare(gold, target, timeout_seconds=None, raise_on_error=False)
        return bool(forward and compare(target, gold, timeout_seconds=None, raise_on_error=False))
    except Exception:  # sympy and its parsers fail in many ways on text; no failure proves equality
        return False


def _numbers_agree(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Return False if both readings are numbers that differ by more than `RELATIVE`; True in every other case.

    math-verify rounds to six decimals, so that for it all small numbers are equal.
    """
    numbers = [[x for x in reading if getattr(x, "is_number", False)] for reading in (first, second)]
    if not all(numbers):
        return True
    a, b = numbers[0][0].evalf(30), numbers[1][0].evalf(30)
    return bool(abs(a - b) <= RELATIVE * max(abs(a), abs(b)))


def _latex(text: str) -> str:
    text = text.replace("π", r"\pi ").replace("∞", r"\infty ").replace("×", r"\times ").replace("±", r"\pm ")
    text = re.sub(r"\^\s*(-?\d+)", r"^{\1}", text)  # LaTeX raises to the first character only
    text = re.sub(
        r"√\s*\(([^()]*)\)|√\s*(\d+|[a-z])", lambda found: rf"\sqrt{{{found[1] or found[2]}}}", text
    )
    text = re.sub(r"(?<!\\)\bsqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    return re.sub(r"(?<![\\A-Za-z])(pi|sin|cos|tan|log|ln)\b", r"\\\1 ", text)
