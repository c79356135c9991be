"""The scores against recorded outputs of the original scripts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcot_vl.evaluate.metrics.document import (
    METRICS,
    anls,
    cer,
    cer_score,
    exact_match,
    levenshtein,
    normalize_vqa,
    relaxed_accuracy,
    relaxed_correctness,
    textvqa_accuracy,
)

CASES = json.loads((Path(__file__).parents[2] / "data" / "metric-cases.json").read_text(encoding="utf-8"))


def test_relaxed_equals_the_original_on_every_recorded_case() -> None:
    assert len(CASES["relaxed"]) == 80
    assert [relaxed_correctness(t, p) for t, p, _ in CASES["relaxed"]] == [c for _, _, c in CASES["relaxed"]]


def test_textvqa_equals_the_original_on_every_recorded_case() -> None:
    assert len(CASES["textvqa"]) == 80
    assert [textvqa_accuracy(p, a) for p, a, _ in CASES["textvqa"]] == [s for _, _, s in CASES["textvqa"]]


def test_anls_equals_the_original_on_every_recorded_case() -> None:
    assert len(CASES["anls"]) == 80
    assert [anls(p, a) for p, a, _ in CASES["anls"]] == [s for _, _, s in CASES["anls"]]


def naive_distance(a: str, b: str) -> int:
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    table[:, 0], table[0, :] = range(len(a) + 1), range(len(b) + 1)
    for i in range(len(a)):
        for j in range(len(b)):
            substituted = table[i, j] + (a[i] != b[j])
            table[i + 1, j + 1] = min(table[i, j + 1] + 1, table[i + 1, j] + 1, substituted)
    return int(table[-1, -1])


@given(st.text("abcß🙂", max_size=14), st.text("abcß🙂", max_size=14))
def test_levenshtein_equals_the_table(a: str, b: str) -> None:
    assert levenshtein(a, b) == naive_distance(a, b)


def test_levenshtein_past_one_machine_word() -> None:
    a = "the quick brown fox jumps over the lazy dog " * 5
    assert levenshtein(a, a) == 0
    assert levenshtein(a, a[1:]) == 1
    assert levenshtein(a, a[::-1]) == naive_distance(a, a[::-1])


@pytest.mark.parametrize(
    ("target", "prediction", "correct"),
    [
        ("100", "105", True),
        ("100", "95", True),
        ("100", "105.1", False),
        ("-3", "-3.1", True),
        ("3", "-3", False),
        ("50%", "0.5", True),
        ("50 %", "50%", True),
        ("50", "50%", False),
        ("0", "0.0", False),  # a zero target is compared as text
        ("0.0", "0.0", True),
        ("1000", "1e3", True),
        ("1,200", "1200", False),
        ("nan", "nan", False),
        ("inf", "inf", False),
        ("Yes", "yes", True),
        ("Yes", "yes ", False),
        (" 42 ", "42", True),
        ("", "", True),
        ("%", "%", True),
    ],
)
def test_relaxed_correctness_keeps_the_original_quirks(target: str, prediction: str, correct: bool) -> None:
    assert relaxed_correctness(target, prediction) is correct


def test_relaxed_accuracy_strips_and_takes_the_best_answer() -> None:
    assert relaxed_accuracy(" yes \n", ["no", "Yes"]) == 1.0
    assert relaxed_accuracy("maybe", ["no", "yes"]) == 0.0


def test_anls_threshold_case_and_blanks() -> None:
    assert anls("3", ["43"]) == 0.5  # exactly the threshold is kept
    assert anls("12", ["34567"]) == 0.0
    assert anls("  Acme LTD ", ["acme ltd"]) == 1.0
    assert anls("", [""]) == anls(" ", [""]) == 1.0
    assert anls("", ["x"]) == 0.0
    assert anls("ab cd", ["ab  cd"]) == pytest.approx(5 / 6)  # inner blanks count


def test_exact_match_ignores_case_and_outer_blanks_only() -> None:
    assert exact_match(" b", ["B"]) == 1.0
    assert exact_match("B.", ["B"]) == 0.0


def test_cer() -> None:
    assert cer("abcd", "abcd") == 0.0
    assert cer("abxd", "abcd") == 0.25
    assert cer("aaaaaaaa", "a") == 7.0
    assert cer("", "") == 0.0
    assert cer("x", "") == 1.0
    assert cer_score("aaaaaaaa", ["a"]) == 0.0
    assert cer_score("a\nb", ["x", "a\nb\n"]) == 1.0


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Cat's", "cat 's"),
        ("dont", "don't"),
        ("Two", "2"),
        ("none", "0"),
        ("1,200", "1200"),
        ("3.5", "3.5"),
        ("St. John.", "st john"),
        ("Coca-Cola", "coca cola"),
        ("a - b", "b"),
        ("12:30", "12:30"),
        ("$5", "$5"),
        ("." * 40, "." * 8),  # the original strips 32 periods, no more
        ("an\ta\nthe", ""),
    ],
)
def test_vqa_normalization(text: str, normal: str) -> None:
    assert normalize_vqa(text) == normal


def test_textvqa_needs_ten_answers_and_leaves_one_out() -> None:
    with pytest.raises(ValueError, match="ten"):
        textvqa_accuracy("a", ["a"])
    others = [f"other {i}" for i in range(10)]
    assert textvqa_accuracy("yes", ["yes"] * 1 + others[1:]) == pytest.approx(0.3)
    assert textvqa_accuracy("yes", ["yes"] * 2 + others[2:]) == pytest.approx(0.6)
    assert textvqa_accuracy("yes", ["yes"] * 4 + others[4:]) == 1.0


@pytest.mark.parametrize("name", ["anls", "relaxed", "exact", "cer"])
def test_questions_that_cannot_be_scored_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="accepted answer"):
        METRICS[name]("x", [])
    with pytest.raises(ValueError, match="list"):
        METRICS[name]("x", "x")
