"""What a rewrite must not do to an answer: a table of ways to get it wrong, and of ways that are right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcot_vl.instruct.fact_check import fold, number, options_of, reason_to_reject, tokens

RIGHT = [  # original, rewrite, question
    ("42", "The total is 42.", ""),
    ("42", "There are **42** of them.", ""),
    ("1,234", "The population is 1234.", ""),
    ("1234", "It comes to 1,234 in all.", ""),
    ("42.50", "The price is 42.5.", ""),
    ("１２３", "The number is 123.", ""),
    ("12%", "It grew by 12 percent.", ""),
    ("12 %", "It grew by 12%.", ""),
    ("-5", "The temperature was −5.", ""),
    ("-5", "The temperature was minus 5.", ""),
    ("$42", "The total is 42 dollars.", ""),
    ("USD 42", "The total is $42.", ""),
    (".5", "The value is 0.5.", ""),
    ("12/03/2024", "The letter is dated 12/03/2024.", ""),
    ("555-1234", "You can call 555-1234.", ""),
    ("INV-007", "The invoice number is INV-007.", ""),
    ("007", "The agent's number is 007.", ""),
    ("42", "The total in 2019 was 42.", "What was the total in 2019?"),
    ("12+30=42. Answer: 42", "Adding them, 12 + 30 = 42. Answer: 42", ""),
    ("John Smith", "The letter was written by John Smith.", ""),
    ("John Smith", "That is John Smith's letter.", ""),
    ("O'Neil", "It was signed by O’Neil.", ""),
    ("C++", "The book is about C++.", ""),
    ("red and blue", "The flag is red and blue.", ""),
    ("the Netherlands", "It was made in the Netherlands.", ""),
    ("B", "The correct option is B.", ""),
    ("(B)", "The answer is B: the second figure.", ""),
    ("A", "The answer is A.", ""),
    ("A", "Option A is right.", ""),
    ("A", "It is (A).", ""),
    ("B. Paris", "The capital is B. Paris.", "Where?\nA. London\nB. Paris"),
    ("B", "The answer is B. Paris.", "Where?\nA. London\nB. Paris"),
    ("Bob", "The name is Bob.", "What is the Name? Ann / Bob / Cid / Dan"),
    ("Yes", "Yes, the invoice is paid.", ""),
    ("No", "No, the invoice is not paid.", ""),
    ("No", "No, it isn't.", ""),
    ("not available", "The figure is not available.", ""),
    ("Pear", "The one that is not sold is the Pear.", "Which one is not sold?"),
    ("北京", "会议在北京举行。", ""),
    ("42元", "总价是42元。", ""),
    ("42元", "总价是42人民币。", ""),
    ("张三, 北京", "张三住在北京。", ""),
    ("42%", "占百分之42。", ""),
    ("about 42", "There are about 42 of them.", ""),
    ("?", "The sign is ?.", ""),
    ("No. 7", "It is invoice No. 7.", ""),
]
WRONG = [  # original, rewrite, question, kind of the reason
    ("42", "", "", "empty"),
    ("42", "  \n", "", "empty"),
    ("42", "word " * 200 + "42", "", "too long"),
    ("42", "The total is 142.", "", "number missing"),
    ("42", "The total is 42.5.", "", "number missing"),
    ("42", "The total is 4.2 and 2.", "", "number missing"),
    ("42", "The total is -42.", "", "number missing"),
    ("42", "The total is minus 42.", "", "number missing"),
    ("-42", "The total is 42.", "", "number missing"),
    ("42", "The share is 42%.", "", "number missing"),
    ("42%", "The share is 42.", "", "number missing"),
    ("42", "It is the 42nd.", "", "number missing"),
    ("42", "The total is forty-two.", "", "number missing"),
    ("007", "The number is 7.", "", "number missing"),
    ("1.234", "The number is 1,234.", "", "number missing"),
    ("12/03/2024", "It is dated 03/12/2024.", "", "number missing"),
    ("3-5", "It takes 5-3 days.", "", "number missing"),
    ("1/2", "It is 2/1.", "", "number missing"),
    ("INV-007", "The invoice number is INV-008.", "", "number missing"),
    ("$42", "The total is €42.", "", "word missing"),
    ("42", "The total is $42.", "", "another number"),
    ("42", "The total is 42 million.", "", "another number"),
    ("42", "总价是42万。", "", "another number"),
    ("42", "The total is 43, close to 42.", "", "another number"),
    ("42", "The total is eleven, 42 at most.", "", "another number"),
    ("42", "The total is not 42.", "", "negated"),
    ("42", "The total isn't 42.", "", "negated"),
    ("42", "It would be incorrect to say 42.", "", "negated"),
    ("42", "Anything except 42.", "", "negated"),
    ("42", "答案不是42。", "", "negated"),
    ("北京", "会议不是在北京。", "", "negated"),
    ("42", "It is about 42.", "", "hedged"),
    ("42", "It is more than 42.", "", "hedged"),
    ("42", "It is at least $42.", "How many $?", "hedged"),
    ("42", "总价约42。", "", "hedged"),
    ("Pear", "It is not the Pear.", "Which one is not sold?", "negated"),
    ("John Smith", "The letter was written by Smith.", "", "word missing"),
    ("John Smith", "The letter was written by Smith John.", "", "word missing"),
    ("John Smith", "The letter was written by Johnny Smith.", "", "word missing"),
    ("Alice 3, Bob 5", "Alice has 5 and Bob has 3.", "", "word missing"),
    ("C++", "The book is about C.", "", "word missing"),
    ("C", "The book is about C++.", "", "option missing"),
    ("blue", "The flag is bluish.", "", "word missing"),
    ("北京", "会议在南京举行。", "", "word missing"),
    ("Yes", "No, it is unpaid.", "", "word missing"),
    ("Yes", "Yes and no.", "", "negated"),
    ("No", "Yes, there is no doubt.", "", "negated"),
    ("not available", "The figure is available.", "", "word missing"),
    ("B", "The answer is C.", "", "option missing"),
    ("B", "The answer is C rather than B.", "", "another option"),
    ("B", "The correct answer is not B.", "", "negated"),
    ("B", "The answer is bold.", "", "option missing"),
    ("A", "A total of them.", "", "option missing"),
    ("B", "The answer is B. London.", "Where?\nA. London\nB. Paris", "another option"),
    ("B. Paris", "The answer is B.", "Where?\nA. London\nB. Paris", "word missing"),
    (
        "Bob",
        "The name is Ann, Bob is her friend.",
        "What is the Name? Ann / Bob / Cid / Dan",
        "another option",
    ),
    ("42", "I'm sorry, I cannot read the number 42.", "", "refusal"),
    ("42", "As an AI, I would say 42.", "", "refusal"),
    ("42", "抱歉，我看不清42。", "", "refusal"),
    ("42", "<think>It says 42</think> It is 42.", "", "about itself"),
    ("42", "Rewritten answer: It is 42.", "", "about itself"),
    ("?", "There is none.", "", "word missing"),
]
LONG = (
    "The report of Acme lists 12 offices in 2019 and 15 offices in 2020, and quotes the chairman, who said "
    '"we grow where others rest" when he spoke to the shareholders in Berlin.'
)


@pytest.mark.parametrize(("original", "rewritten", "question"), RIGHT)
def test_a_faithful_rewrite_passes(original: str, rewritten: str, question: str) -> None:
    assert reason_to_reject(original, rewritten, question) is None


@pytest.mark.parametrize(("original", "rewritten", "question", "kind"), WRONG)
def test_an_unfaithful_one_does_not(original: str, rewritten: str, question: str, kind: str) -> None:
    reason = reason_to_reject(original, rewritten, question)
    assert reason is not None and reason.split(":")[0] == kind, reason


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (("12 offices", "13 offices"), "number missing"),
        (("2019", "2020"), "number missing"),
        (("in 2019 and 15", "and 15"), "number missing"),
        (("grow", "shrink"), "word missing"),
        (("Berlin", "Vienna"), "word missing"),
        (("lists 12", "does not list 12"), "negated"),
        (("offices in 2020", "million offices in 2020"), "another number"),
        (("15 offices", "more than 15 offices"), "hedged"),
    ],
)
def test_long_answers_keep_numbers_names_and_quotations(change: tuple[str, str], kind: str) -> None:
    told = LONG.replace("The report", "As you can see, the report").replace("when he spoke", "speaking")
    assert reason_to_reject(LONG, told) is None
    reason = reason_to_reject(LONG, told.replace(*change))
    assert reason is not None and reason.split(":")[0] == kind, reason


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_text_breaks_it(original: str, rewritten: str, question: str) -> None:
    reason = reason_to_reject(original, rewritten, question)
    assert reason is None or reason.split(":")[0].strip()


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_one_number_is_never_another(one: int, two: int) -> None:
    for text in (f"The total is {two}.", f"The total is {two:,}!", f"答案是{two}。", f"**{two}**"):
        assert (reason_to_reject(str(one), text) is None) == (one == two)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**6), max_value=10**6))
def test_a_number_has_one_form(value) -> None:
    assert number(f"{value:,}") == number(f"{value}") == number(number(f"{value}"))
    assert tokens(f"{value}") == [number(f"{value}")]


def test_forms_of_the_same() -> None:
    assert fold("１２ ％") == "12%"
    assert tokens("“Total”: ($1,234.50)") == ["total", "1234.5", "$"]
    assert tokens("007 3,5 12:30 a@b.com") == ["007", "3,5", "12:30", "a@b.com"]
    assert options_of("Where?\n(A) In Rome\n(B) In Paris") == {"A": "In Rome", "B": "In Paris"}
    assert list(options_of("What? x / y / z").values()) == ["x", "y", "z"]
    assert options_of("Read the page.") == {}
