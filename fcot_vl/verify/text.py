"""Normalize the variants of a string: LaTeX, HTML, Markdown, full-width characters, unusual dashes.

This is the first step of a check. `clean` keeps case, lines and meaning. `plain` returns the form in which two texts
are compared.
"""

from __future__ import annotations

import html
import re
import unicodedata

ESCAPED_DOLLAR = "\ue000"  # a private character: replaces \$ while the dollars around mathematics are removed
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—―−﹣", "-"),
        **dict.fromkeys("‘’‚‛′`´", "'"),
        **dict.fromkeys("“”„‟″«»「」『』", '"'),
        "⁄": "/",
        "∕": "/",
        "÷": "/",
        "٫": ".",
        "٬": ",",
        "٪": "%",
        "∗": "*",
        "⋅": "×",
        "·": "×",
        "✕": "×",
        "✖": "×",
        "\r": "\n",
    }
)
WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|mathrm|mathbf|mathit|mathsf|operatorname|mbox|emph|bm|boldsymbol)"
    r"\s*\{([^{}]*)\}"
)
LATEX: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\\\$", ESCAPED_DOLLAR),
        (r"\\([%#&_])", r"\1"),
        (r"\{,\}", ","),
        (r"\\!", ""),
        (r"\\(?:[,;: ]|quad\b|qquad\b)|(?<=\d)~(?=\d)", " "),
        (r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr|displaystyle)(?![A-Za-z])", ""),
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])", "°"),
        (r"\\(?:times|cdot)(?![A-Za-z])", "×"),
        (r"\\infty(?![A-Za-z])", "∞"),
        (r"\\pi(?![A-Za-z])", "π"),
        (r"\\approx(?![A-Za-z])", "≈"),
        (r"\\neq?(?![A-Za-z])", "≠"),
        (r"(?<![\^{])\\[dtc]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}", r" \1/\2"),
        (r"(?<![\^{])\\[dtc]?frac\s*(\d)\s*(\d)(?!\d)", r" \1/\2"),
        (r"\\[()\[\]]", " "),
    )
)
DOLLARS = re.compile(r"\$\$([^$]+)\$\$|\$(?!\s)([^$\n]*[^\s$])\$(?!\d)")
LINE_TAG = re.compile(r"<\s*/?\s*(?:br|p|div|li|tr)\b[^<>]{0,80}>", re.IGNORECASE)
TAG = re.compile(
    r"<\s*/?\s*(?:b|i|u|em|strong|span|code|mark|font|big|small|sub|ul|ol|td)\b[^<>]{0,80}>", re.IGNORECASE
)
SUP_TAG = re.compile(r"<sup>\s*([+\-−]?\d{1,4})\s*</sup>", re.IGNORECASE)
EMPHASIS = re.compile(r"(?<![0-9A-Za-z)\]*])\*\*(?=\S)([^*\n]+?)\*\*|(?<![0-9A-Za-z_])__(?=\S)([^_\n]+?)__")
PAIRS = {'"': '"', "'": "'", "**": "**", "*": "*", "_": "_", "__": "__", "《": "》", "$": "$"}
BULLET = re.compile(r"^\s*(?:[*•●▪]\s+|#{1,6}\s+|>\s+)")
ARTICLE = re.compile(r"^(?:the|an?)\s+(?=\S)")


def clean(text: str) -> str:
    """Remove HTML, LaTeX wrappers and typographic variants; keep case, lines and Markdown emphasis.

    Digits of every script become ASCII, `1½` becomes `1 1/2`, `10³` becomes `10^3`, `\\text{B}` becomes `B`.
    """
    text = html.unescape(text)
    text = TAG.sub("", LINE_TAG.sub("\n", SUP_TAG.sub(r"^\1", text)))
    text = re.sub(r"([⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda found: "^" + found[0].translate(SUPERSCRIPTS), text)
    text = "".join(_character(text, at) for at in range(len(text)))
    text = unicodedata.normalize("NFKC", text).translate(CHARACTERS)
    for _ in range(3):
        text = WRAPPED.sub(r"\1", text)
    for pattern, by in LATEX:
        text = pattern.sub(by, text)
    text = DOLLARS.sub(lambda found: found[1] or found[2], text)
    return text.replace(ESCAPED_DOLLAR, "$")


def _character(text: str, at: int) -> str:
    """Normalize one character: separate vulgar fractions from digits, convert digits to ASCII, drop invisible ones."""
    char = text[at]
    if char.isascii():
        return char
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Cf":
        return ""
    if category == "No" and "⁄" in (parts := unicodedata.normalize("NFKC", char)):
        before = " " if at and (text[at - 1].isdecimal() or text[at - 1] == "⁄") else ""
        after = " " if text[at + 1 : at + 2].isdecimal() else ""
        return before + parts.replace("⁄", "/") + after
    return char


def without_emphasis(text: str) -> str:
    """Remove Markdown's `**bold**` from a text. `2**3` keeps its stars."""
    return EMPHASIS.sub(lambda found: found[1] or found[2], text)


def unwrap(text: str) -> str:
    """Strip bullets, paired quotes and stars, and a final period from one line."""
    while True:
        before = text
        text = BULLET.sub("", text.strip()).strip()
        text = re.sub(r"[\s.,;:!。，；：！、]+$", "", text)
        for opening, closing in PAIRS.items():
            inner = text[len(opening) : -len(closing)]
            if (
                len(text) > len(opening) + len(closing)
                and text.startswith(opening)
                and text.endswith(closing)
                and opening not in inner
            ):
                text = inner
        if text == before:
            return text


def plain(text: str) -> str:
    """Return the form of a text used for comparison.

    It has no upper case, articles or outer punctuation. Hyphens between letters become spaces.
    """
    text = unwrap(without_emphasis(clean(text)))
    text = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text.casefold())).strip()
    text = ARTICLE.sub("", text.replace("&", " and "))
    text = re.sub(r"(?<=[^\W\d_])-(?=[^\W\d_])", " ", text)
    text = re.sub(r"\b([a-z])\.(?=[a-z]\b)", r"\1", text)  # u.s.a
    text = re.sub(r"\s*([,;/])\s*", r"\1", text)
    return re.sub(r"\s+", " ", text).strip()
