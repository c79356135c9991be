"""Which right answers are kept: properties of de-duplication and of both ways to choose, and what is reasoned."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcot_vl.instruct.answer_selection import (
    DUPLICATE_SIMILARITY,
    choose,
    distinct_answers,
    has_reasoning,
    similarity,
)

TEXTS = st.lists(
    st.lists(st.sampled_from(["add", "the", "two", "prices", "12", "30", "42", "so"]), max_size=8).map(
        " ".join
    ),
    max_size=8,
)


@given(TEXTS, st.randoms())
def test_what_is_distinct_is_unlike_and_covers_the_rest(texts: list[str], shuffled: random.Random) -> None:
    found = [texts[at] for at in distinct_answers(texts)]
    assert all(
        similarity(one, two) < DUPLICATE_SIMILARITY for at, one in enumerate(found) for two in found[:at]
    )
    assert all(any(similarity(text, one) >= DUPLICATE_SIMILARITY for one in found) for text in texts)
    assert found == sorted(found, key=lambda text: (len(text), text))
    again = list(texts)
    shuffled.shuffle(again)
    assert [again[at] for at in distinct_answers(again)] == found, "whatever the order they came in"
    assert distinct_answers(found) == list(range(len(found)))


@given(TEXTS, st.integers(1, 5))
def test_what_is_chosen(texts: list[str], keep: int) -> None:
    texts = [texts[at] for at in distinct_answers(texts)]
    assert choose(texts, keep, "shortest") == list(range(min(keep, len(texts))))
    chosen = choose(texts, keep, "diverse")
    assert len(set(chosen)) == len(chosen) == min(keep, len(texts))
    assert not texts or chosen[0] == 0
    assert choose(texts, keep + 1, "diverse")[:keep] == chosen, "one more changes nothing before it"
    for step in range(1, len(chosen)):  # none left was farther from all before
        nearest = [max(similarity(text, texts[one]) for one in chosen[:step]) for text in texts]
        left = [at for at in range(len(texts)) if at not in chosen[:step]]
        assert nearest[chosen[step]] == min(nearest[at] for at in left)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("12+30=42. Answer: 42", "12 + 30 = 42.  ANSWER: 42", True),
        ("It is 1,234.", "It is 1234", True),
        ("12+30=42. Answer: 42", "30+12=42. Answer: 42", False),
        ("12+30=42. Answer: 42", "12+31=43. Answer: 43", False),
        ("左边是12，右边是30，一共42。", "左边是12，右边是30，一共42", True),
        ("左边是12，右边是30，一共42。", "先看右边的30，再加上左边的12，得到42。", False),
        ("", "", True),
    ],
)
def test_likeness(one: str, two: str, same: bool) -> None:
    assert (
        (similarity(one, two) >= DUPLICATE_SIMILARITY)
        == same
        == (similarity(two, one) >= DUPLICATE_SIMILARITY)
    )


@pytest.mark.parametrize(
    ("response", "answer", "is_reasoned"),
    [
        ("12+30=42. Answer: 42", "42", True),
        ("99-62=37. Answer: 37", "37", True),
        (
            "The first bar reads 12 and the second one is longer, so the second.\nAnswer: the second",
            "the second",
            True,
        ),
        ("左边是12，右边是30，两个加起来一共是42。答案：42", "42", True),
        ("42", "42", False),
        ("Answer: 42", "42", False),
        ("The final answer is **42**.", "42", False),
        ("\\boxed{42}", "42", False),
        ("答案：42", "42", False),
        ("The total is 42.", "42", False),
        ("In 2019 and 2020 it is 42.", "42", False),
        ("", "", False),
    ],
)
def test_reasoned(response: str, answer: str, is_reasoned: bool) -> None:
    assert has_reasoning(response, answer) == is_reasoned
