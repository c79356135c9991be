"""Select the correct answers to keep for a question: no duplicates, and the shortest or the most different ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from fcot_vl.instruct.fact_check import JOINED, tokens

DUPLICATE_SIMILARITY = 0.8  # share of common word pairs from which two answers count as the same
WORDS = 8  # minimum words besides the answer for a reasoned response without a calculation
CUES = re.compile(
    r"\\boxed|\b(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\b:?|(?:最终)?答案(?:是|为)?[:：]?", re.IGNORECASE
)
Select = Literal["shortest", "diverse"]


def words(text: str) -> list[str]:
    """Split a text into words and numbers in one form (`tokens` in `fact_check.py`).

    Scripts without blanks are split into characters.
    """
    return [
        word for token in tokens(text) for word in (token if re.match(rf"[{JOINED}]", token) else [token])
    ]


def similarity(one: str, two: str) -> float:
    """Compute the similarity of two texts from 0 to 1: the share of word pairs that they have in common (Jaccard).

    The start and the end of a text count as words.
    """
    first, second = _pairs(one), _pairs(two)
    return len(first & second) / len(first | second)


def distinct_answers(texts: Sequence[str]) -> list[int]:
    """Return the texts that are not like a shorter one (likeness of at least 0.8), shortest first.

    The result does not depend on the order of the texts.
    """
    found: list[int] = []
    for at in sorted(range(len(texts)), key=lambda at: (len(texts[at]), texts[at], at)):
        if all(similarity(texts[at], texts[other]) < DUPLICATE_SIMILARITY for other in found):
            found.append(at)
    return found


def choose(texts: Sequence[str], keep: int, select: Select) -> list[int]:
    """Choose at most `keep` of the distinct texts.

    `shortest` takes the shortest ones. `diverse` takes the shortest, and then one by one the text farthest from all
    chosen ones. Among equally far texts, the shorter one is taken.

    Args:
        texts: Texts in the order of `distinct_answers`, shortest first.
    """
    if select == "shortest":
        return list(range(min(keep, len(texts))))
    chosen = [0] if texts else []
    while len(chosen) < min(keep, len(texts)):
        left = [at for at in range(len(texts)) if at not in chosen]
        chosen.append(
            min(left, key=lambda at: (max(similarity(texts[at], texts[one]) for one in chosen), at))
        )
    return chosen


def has_reasoning(response: str, answer: str) -> bool:
    """Return True if a response has reasoning: a calculation, or at least 8 words besides the answer."""
    rest = CUES.sub(" ", response)
    before, _, after = rest.rpartition(answer) if answer and answer in rest else (rest, "", "")
    rest = f"{before} {after}"
    answer_words = set(words(answer))
    calculated = len(re.findall(r"\d+(?:[.,]\d+)*", rest)) >= 2 and re.search(r"\d\s*[-+*/=×÷−]\s*\d", rest)
    return bool(calculated) or sum(word not in answer_words for word in words(rest)) >= WORDS


def _pairs(text: str) -> set[tuple[str, str]]:
    found = ["", *words(text), ""]
    return set(pairwise(found))
