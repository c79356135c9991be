"""Multiple choice: find the option that an answer names by its letter, its text, or both if they agree."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

LETTERS = "ABCDEFGHIJ"
LISTED = re.compile(r"(?<![A-Za-z0-9])\(?([A-J])\s*[).:、．](?=\s*\S)")
BARE = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+|right\s+|best\s+)?(?:option|choice|answer|选项|选)\s*:?\s*)?[(\[{]?\s*([A-Ja-j])\s*[)\]}]?\s*[.。:]?",
    re.IGNORECASE,
)
WITH_TEXT = re.compile(
    r"(?:(?:option|choice|answer|选项|选)\s*)?(?:[(\[]\s*([A-J])\s*[)\]]\s*[.:]?|([A-J])\s*[).:、,]|([A-J])\s+-(?=\s)|([A-J])(?=\s*\())"
    r"\s*(\S.*)",
    re.DOTALL,
)
BECAUSE = re.compile(r"[(\[]?([A-J])[)\]]?[.,;]?\s+(?:because|since|as)\b.*", re.DOTALL)
NAMED_RIGHT = re.compile(
    r"(?:(?i:the\s+)?(?i:option|choice|answer)\s+)?[(\[]?([A-J])[)\]]?[.)]?\s+is\s+(?:the\s+)?(?:correct|right|best)"
    r"(?:\s+(?:answer|option|choice|one))?",
)
CHOSEN = re.compile(
    r"(?:(?:so|thus|therefore|hence),?\s+)?(?:I\s+(?:choose|pick|select|would\s+choose)|it(?:'s|\s+is)|"
    r"(?:the\s+)?(?:correct\s+|right\s+|best\s+)?(?:option|choice|answer|one)\s+(?:is|would\s+be)|故选|应选|选择?)"
    r"\s*:?\s*(?:(?:option|choice)\s+)?(\S.*)",
    re.IGNORECASE | re.DOTALL,
)
Same = Callable[[str, str], bool]


def listed_options(question: str) -> list[str]:
    """Return the options that a question lists as `A. ... B. ...` or `(A) ... (B) ...`, without their letters."""
    marks = list(LISTED.finditer(question))[-60:]
    best: list[re.Match[str]] = []
    for start, mark in enumerate(marks):
        if mark[1] != "A":
            continue
        run = [mark]
        for following in marks[start + 1 :]:
            if len(run) < len(LETTERS) and following[1] == LETTERS[len(run)]:
                run.append(following)
        if len(run) >= len(best):
            best = run
    if len(best) < 2:
        return []
    ends = [mark.start() for mark in best[1:]] + [len(question)]
    texts = [question[mark.end() : end].strip(" \n\t;,") for mark, end in zip(best, ends, strict=True)]
    return [*texts[:-1], texts[-1].split("\n")[0].strip()]


def bare_options(options: Sequence[str]) -> list[str]:
    """Remove the leading letters from options (`B. Paris` -> `Paris`) if each option has its own."""
    found = [
        re.match(rf"\s*\(?{LETTERS[at]}\s*[).:、．]\s*(\S.*)", option, re.DOTALL)
        for at, option in enumerate(options[:10])
    ]
    if options and len(options) <= len(LETTERS) and all(found):
        return [match[1].strip() for match in found if match]
    return [option.strip() for option in options]


def letter_of(answer: str) -> str | None:
    """Return the letter of an answer that is only a letter.

    Examples are `B`, `(b)`, `B.`, `option B`, `B is correct` and `B because ...`. Return None for other answers.
    """
    if found := BARE.fullmatch(answer.strip()):
        return found[1].upper()
    for pattern in (NAMED_RIGHT, BECAUSE):
        if found := pattern.fullmatch(answer.strip().rstrip(".")):
            return found[1]
    return None


def split_label(answer: str) -> tuple[str, str] | None:
    """Split `B) Paris` into (`B`, `Paris`). Return None unless a letter with its punctuation comes before a text."""
    found = WITH_TEXT.fullmatch(answer.strip())
    if found is None:
        return None
    text = re.sub(r"^\((.*)\)$", r"\1", found[5].strip())
    return next(letter for letter in found.groups()[:4] if letter), text


def choose(answer: str, options: Sequence[str], same: Same) -> int | None:
    """Return the index of the option that an answer names.

    Args:
        answer: Cleaned final answer.
        options: Texts of the options without letters, in order.
        same: Function that compares two values.

    Returns:
        Index of the option. None if the answer names no option or several, or if its letter and its text disagree.
    """
    for form in _forms(answer):
        by_text = [at for at, option in enumerate(options) if same(form, option)]
        letter = letter_of(form)
        if letter is not None and not by_text:
            at = LETTERS.index(letter)
            return at if at < len(options) else None
        if letter is not None and by_text and by_text != [LETTERS.index(letter)]:
            return None
        if len(by_text) == 1:
            return by_text[0]
        if by_text:
            exact = [at for at in by_text if options[at].strip().casefold() == form.strip().casefold()]
            return exact[0] if len(exact) == 1 else None
        if (split := split_label(form)) is not None:
            at = LETTERS.index(split[0])
            return at if at < len(options) and same(split[1], options[at]) else None
    return None


def _forms(answer: str) -> list[str]:
    found = CHOSEN.fullmatch(answer.strip().rstrip("."))
    return [answer, found[1]] if found else [answer]


def chosen_letter(answer: str) -> str | None:
    """Return the letter that an answer names if the options are unknown. `B) Paris` gives B, `A cat` gives None."""
    for form in _forms(answer):
        if letter := letter_of(form):
            return letter
        if (split := split_label(form)) is not None and not re.match(
            r"(?:or|and)\b|[A-J]\b(?!\S)", split[1], re.IGNORECASE
        ):
            return split[0]
    return None
