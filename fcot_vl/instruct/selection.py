"""Which of several right answers to a question are kept: none twice, the shortest or the most different."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from fcot_vl.instruct.facts import JOINED, tokens

ALIKE = 0.8  # share of word pairs from which two answers count as the same
WORDS = 8  # words beside the answer that make it a reasoned one; or a calculation
CUES = re.compile(
    r"\\boxed|\b(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\b:?|(?:最终)?答案(?:是|为)?[:：]?", re.IGNORECASE
)
Select = Literal["shortest", "diverse"]


def words(text: str) -> list[str]:
    """Words and numbers in one form (`facts.tokens`); of scripts without blanks, every character."""
    return [
        word for token in tokens(text) for word in (token if re.match(rf"[{JOINED}]", token) else [token])
    ]


def likeness(one: str, two: str) -> float:
    """From 0 to 1: the word pairs two texts share, of all they have (Jaccard), their begin and end counted as words."""
    first, second = _pairs(one), _pairs(two)
    return len(first & second) / len(first | second)


def distinct(texts: Sequence[str]) -> list[int]:
    """The texts that are not like a shorter one (likeness of at least 0.8), shortest first; whatever their order."""
    found: list[int] = []
    for at in sorted(range(len(texts)), key=lambda at: (len(texts[at]), texts[at], at)):
        if all(likeness(texts[at], texts[other]) < ALIKE for other in found):
            found.append(at)
    return found


def choose(texts: Sequence[str], keep: int, select: Select) -> list[int]:
    """At most `keep` of distinct texts: the shortest; or the shortest, then one by one the farthest from all chosen.

    Args:
        texts: as `distinct` leaves them, shortest first; of equally far ones the shorter is taken.
    """
    if select == "shortest":
        return list(range(min(keep, len(texts))))
    chosen = [0] if texts else []
    while len(chosen) < min(keep, len(texts)):
        left = [at for at in range(len(texts)) if at not in chosen]
        chosen.append(min(left, key=lambda at: (max(likeness(texts[at], texts[one]) for one in chosen), at)))
    return chosen


def reasoned(response: str, answer: str) -> bool:
    """Whether a response says how it came to its answer: a calculation, or at least 8 words beside the answer."""
    rest = CUES.sub(" ", response)
    before, _, after = rest.rpartition(answer) if answer and answer in rest else (rest, "", "")
    rest = f"{before} {after}"
    mine = set(words(answer))
    calculated = len(re.findall(r"\d+(?:[.,]\d+)*", rest)) >= 2 and re.search(r"\d\s*[-+*/=×÷−]\s*\d", rest)
    return bool(calculated) or sum(word not in mine for word in words(rest)) >= WORDS


def _pairs(text: str) -> set[tuple[str, str]]:
    found = ["", *words(text), ""]
    return set(pairwise(found))
