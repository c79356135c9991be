"""The verifier against answers made to fool it, and properties that hold for all of them."""

# ruff: noqa: E501 (a table reads better in long lines)

from __future__ import annotations

import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_vl.verify import extract_answer, same_value, verify

RIGHT = {  # kind -> (response, truth)
    "digits": [
        ("42", "42"), ("42.", "42"), ("42.0", "42"), ("42.50", "42.5"), ("1,234", "1234"), ("1234", "1,234"),
        ("1 234 567", "1234567"), ("1'234", "1234"), ("1,234,567.89", "1234567.89"), ("1.234.567", "1,234,567"),
        ("1.234,56", "1234.56"), ("1,5", "1.5"), ("0,234", "0.234"), ("12,34,567", "1234567"), (".5", "0.5"),
        ("+7", "7"), ("-0", "0"), ("0", "-0"), ("-0.0", "0"), ("−5", "-5"), ("–5", "-5"), ("minus five", "-5"),
        ("(1,234)", "-1234"), ("($5)", "-$5"), ("１２．５", "12.5"), ("１，２３４", "1234"), ("٤٢", "42"), ("४२", "42"),
        ("*42*", "42"), ("`42`", "42"), ('"42"', "42"), ("42!", "42"), ("~42", "42"), ("about 42", "42"),
    ],
    "echoes": [
        ("The answer is 42, not 43.", "42"), ("The answer is (C), not (B).", "C"), ("B, not C", "B"),
        ("42 (forty-two)", "42"), ("Final answer: 42 (forty-two)", "42"), ("Option A is right", "A"),
    ],
    "percent": [
        ("12%", "0.12"), ("0.12", "12%"), ("12 percent", "12%"), ("12 per cent", "0.12"), ("12％", "12%"), ("12.0 %", "12%"),
        ("12\\%", "12%"), ("50%", "1/2"), ("½", "50%"), ("百分之十二", "12%"), ("33.3%", "1/3"), ("12% of the people", "12%"),
        ("-3.5%", "−3.5%"), ("(3.5%)", "-3.5%"),
    ],
    "fractions": [
        ("½", "0.5"), ("0.5", "½"), ("1/2", "½"), ("2/4", "1/2"), ("1½", "1.5"), ("1 1/2", "1½"), ("1 ½", "1.5"),
        ("⅓", "0.333"), ("0.6667", "2/3"), ("\\frac{1}{2}", "0.5"), ("$\\frac{3}{4}$", "3/4"), ("\\dfrac12", "1/2"),
        ("1\\frac{1}{2}", "3/2"), ("三分之一", "1/3"), ("1⁄2", "0.5"), ("-1/2", "-0.5"),
    ],
    "powers": [
        ("1e3", "1000"), ("1.2E+3", "1200"), ("1.2×10^3", "1200"), ("1.2 x 10^{3}", "1,200"), ("1.2 × 10³", "1200"),
        ("10^3", "1000"), ("3\\times 10^{-2}", "0.03"), ("5*10^-3", "0.005"),
    ],
    "words": [
        ("three", "3"), ("3", "Three"), ("forty-two", "42"), ("one hundred and five", "105"), ("two million", "2,000,000"),
        ("a hundred", "100"), ("3rd", "third"), ("21st", "21"), ("十二", "12"), ("两百", "200"), ("三千零五", "3005"),
        ("十二个", "12"), ("twelve apples", "12"), ("1.2 million", "1200000"), ("3k", "3000"), ("$3M", "3000000"),
        ("$5m", "5 million"), ("2bn", "2 billion"), ("5万", "50000"), ("1.2亿", "120000000"), ("negative five", "-5"),
    ],
    "units": [
        ("42 apples", "42"), ("42", "42 apples"), ("5 kg", "5"), ("5 km", "5000 m"), ("5kg", "5 kilograms"), ("1 hour", "60 min"),
        ("1 hour 30 minutes", "90 minutes"), ("90 degrees", "90°"), ("90^\\circ", "90 degrees"), ("37 ℃", "37 °C"),
        ("37 degrees Celsius", "37 °C"), ("5 m²", "5 square meters"), ("5\\text{ cm}", "5 cm"), ("5\\,\\mathrm{kg}", "5 kg"),
        ("1 inch", "2.54 cm"), ("42 apple", "42 apples"), ("5 公里", "5 km"), ("5 MW", "5 MW"), ("60 km/h", "60 kmh"),
    ],
    "money": [
        ("$1,234.00", "1234"), ("1234", "$1,234.00"), ("\\$5", "5"), ("US$5", "$5"), ("5 USD", "$5"), ("USD 5", "5 dollars"),
        ("€1.234,50", "1,234.50 EUR"), ("£5", "5 pounds"), ("-$5", "$-5"), ("50 cents", "$0.50"), ("$1.2 million", "$1,200,000"),
        ("5元", "5 yuan"), ("&#36;5", "$5"),
    ],
    "dates": [
        ("March 5, 2024", "2024-03-05"), ("5 March 2024", "March 5, 2024"), ("5th of March, 2024", "2024-03-05"),
        ("Mar. 5 2024", "2024/03/05"), ("2024年3月5日", "March 5, 2024"), ("Tuesday, March 5, 2024", "2024-03-05"),
        ("13/05/2024", "13 May 2024"), ("05/13/2024", "2024-05-13"), ("5/3/2024", "05/03/2024"), ("12/25/98", "12/25/1998"),
        ("March 2024", "Mar 2024"), ("March 5", "5 March"), ("in 2019", "2019"), ("3:45 PM", "15:45"), ("3 p.m.", "3:00 PM"),
        ("03:45", "3:45"), ("May 5th", "5 May"), ("5-Mar-2024", "2024-03-05"),
    ],
    "lists": [
        ("apples, pears and bananas", "bananas, apples, pears"), ("a; b; c", "a, b, c"), ("1, 2, 3", "3, 2, 1"),
        ("$5 and $6", "5, 6"), ("(3,4)", "(3, 4)"), ("{2, 1}", "1, 2"), ("苹果、梨", "梨、苹果"), ("100,200,300", "100, 200, 300"),
        ("Answer:\n- apples\n- pears", "pears, apples"), ("Smith & Jones", "Smith and Jones"), ("x, x, y", "y, x, x"),
    ],
    "polar": [
        ("Yes", "yes"), ("Yes, because the bar is blue.", "Yes"), ("No. It is red.", "no"), ("Yes it is", "Yes"),
        ("true", "True"), ("The answer is yes.", "Yes"), ("Answer: No, there are two.", "No"), ("是的", "是"), ("It is true.", "True"),
    ],
    "letters": [
        ("(B)", "B"), ("Answer: B", "(B)"), ("B.", "B"), ("b", "B"), ("Option B", "B"), ("B) Paris", "B"), ("Answer: (B) Paris", "B"),
        ("The correct option is B.", "B"), ("The answer is (B).", "B"), ("B is correct.", "B"), ("B is the right answer", "B"),
        ("\\boxed{B}", "B"), ("\\boxed{\\text{B}}", "B"), ("**B**", "B"), ("Ｂ", "B"), ("（B）", "B"), ("故选B", "B"), ("答案：B", "B"),
        ("I choose B.", "B"), ("B because it is red", "B"), ("[B]", "B"), ("A", "A"), ("Answer: A", "(A)"), ("It's B", "B"),
        ("Final answer: B. Paris", "B"), ("B", "B) Paris"), ("B: Paris", "B"), ("Ⓑ", "B"),
    ],
    "text": [
        ("Paris", "paris"), ("The capital is Paris.", "Paris"), ("the Eiffel Tower", "Eiffel Tower"), ('"Paris"', "Paris"),
        ("“Paris”", "Paris"), ("Coca-Cola", "Coca Cola"), ("don’t", "don't"), ("U.S.A.", "USA"), ("  new   york ", "New York"),
        ("It is Paris", "Paris"), ("The sign says STOP.", "stop"), ("ＡＢＣ", "abc"), ("Tom & Jerry", "Tom and Jerry"),
        ("<b>Paris</b>", "Paris"), ("AT&amp;T", "AT&T"), ("巴黎。", "巴黎"), ("Answer: St. Louis", "St. Louis"), ("007", "007"),
        ("Take it or leave it", "Take it or leave it"), ("nan", "NaN"), ("Not yet", "not yet"), ("Who am I?", "Who am I?"),
        ("Answer: in Paris", "Paris"), ("Paris is the answer.", "Paris"), ("ﬁsh", "fish"),
    ],
    "reasoned": [
        ("40 + 2 = 42\nAnswer: 42", "42"), ("The answer is 42.", "42"), ("So the final answer is **42**.", "42"), ("#### 42", "42"),
        ("**Answer:** 42", "42"), ("**Answer: 42**", "42"), ("### Final Answer\n\n42", "42"), ("Final Answer: $42$", "42"),
        ("\\[ \\boxed{\\frac{1}{2}} \\]", "0.5"), ("Answer: \\boxed{42}", "42"), ("<think>41? no</think>42", "42"),
        ("<think>hm</think>\n<answer> 42 </answer>", "42"), ("答案是42。", "42"), ("答：42", "42"), ("There are 42 apples.", "42"),
        ("The total is 42.", "42"), ("Total: 42", "42"), ("40 + 2 = 42", "42"), ("The total comes to 42 apples in the picture.", "42"),
        ("I first thought 42, so the answer is 43", "43"), ("42 items cost 7", "7"), ("The total is not 42 but 43.", "43"),
        ("Answer: 41\nWait, I missed one.\nAnswer: 42", "42"), ("Answer: 42\n\nExplanation: 40 and 2.", "42"), ("Therefore, 42.", "42"),
        ("The answer is 42. This follows from the table.", "42"), ("In 2019 the value was 42.", "42"), ("Answer (in kg): 42", "42"),
        ("42 is the answer.", "42"), ("We see bars.\nThe sum is **42**", "42"), ("The answer to question 3 is 42.", "42"),
    ],
    "second look": [
        ("The answer is: $\\boxed{12\\%}$", "0.12"), ("Answer: 1/8", "12.5%"), ("So, the total revenue is $1.5 million.", "1,500,000"), ("**Final Answer:** B", "B"), ("The final answer is (B) Paris.", "B"),
        ("Answer: 3/4 cup", "0.75"), ("Answer: 5 years", "5"), ("In total, there are 12 students.", "12"), ("答案：12%", "0.12"), ("Thus, the answer is B: Paris.", "B"),
        ("Answer - B", "B"), ("Therefore the answer is $\\dfrac{3}{4}$.", "0.75"), ("Answer: The Eiffel Tower", "eiffel tower"), ("Hence, x = 5", "5"), ("Answer: x = 5", "5"),
        ("Answer: 25°C", "25 °C"), ("The answer is -3.", "-3"), ("The difference is 5%.", "5%"), ("Answer: Yes.", "yes"), ("The correct answer is option C.", "C"),
        ("\\(\\boxed{7}\\)", "7"), ("The answer is **B**.", "B"), ("Answer: 12,5 %", "12.5%"), ("Answer: 100 percent", "100%"), ("The ratio is 3:4.", "3:4"),
        ("Answer: 2,000 people", "2000"), ("The year is 2019.", "2019"), ("Answer: '42'", "42"), ("Answer：B", "B"), ("ANSWER: b", "B"),
        ("Answer: Blue.", "blue"),
    ],
}  # fmt: skip
WRONG = {
    "echoes": [
        ("The answer is 42, not 43.", "43"), ("not 42, not 43", "42"), ("B, not C", "C"), ("42 (forty-three)", "42"),
        ("Answer: 12 (13)", "12"), ("Answer: 42, not really", "42"), ("Option B is right", "A"),
    ],
    "digits": [
        ("1.234", "1,234"), ("1,234", "1.234"), ("42", "43"), ("42", "-42"), ("4 2", "42"), ("421", "42"), ("", "0"), ("   ", "0"),
        ("...", "0"), ("3.14", "3.14159"), ("3.14159", "3.14"), ("12345678", "12345679"), ("1000000", "1000001"), ("007", "7"),
        ("7", "007"), ("42 or 43", "42"), ("42/43", "42"), ("40-45", "40"), ("40-45", "45"), ("10-5", "5"), ("2**3", "23"),
        ("2**3", "8**1"), ("42?", "42"), (">42", "42"), ("≥ 42", "42"), ("42+", "42"), ("more than 42", "42"), ("nearly 42", "42"),
        ("at least 42", "42"), ("±5", "5"), ("nan", "0"), ("inf", "1e999"), ("(5)", "5"), ("1990s", "1990"), ("2024-03-05", "2016"),
        ("1.2.3", "1.23"), ("not 42", "42"), ("≠42", "42"), ("42 of 50", "42"), ("42 times", "42"), ("--5", "5"), ("0x2A", "42"),
        ("42nd Street", "42"), ("five", "4"), ("一些", "1"), ("一般", "1"), ("One Direction", "1"), ("third", "1/3"),
    ],
    "percent": [
        ("12", "12%"), ("12%", "12"), ("1.2", "12%"), ("12%", "1.2"), ("12 percentage points", "12%"), ("12‰", "12%"),
        ("0.33", "1/3"), ("0.3", "1/3"), ("0.334", "1/3"), ("12% more", "12%"), ("12% increase", "12% decrease"),
    ],
    "fractions": [
        ("1½", "11/2"), ("11/2", "1½"), ("1/2", "2/1"), ("1/2", "12"), ("1/0", "0"), ("0/0", "0"), ("3:4", "3/4"), ("3:4", "4:3"),
        ("1 3/2", "2.5"),
    ],
    "powers": [("1.2×10^3", "1.2"), ("10^3", "103"), ("10³", "103"), ("1e3", "13"), ("2^3", "23"), ("9^9^9", "9"), ("1e-3", "1000")],
    "units": [
        ("5 kg", "5 g"), ("5 kg", "5 km"), ("42 apples", "42 pears"), ("5 km", "5 m"), ("1.2 million", "1.2"), ("42 million", "42"),
        ("5 mW", "5 MW"), ("5 °C", "5 °F"), ("5 m", "5 m²"), ("5 km/h", "5 km"), ("3 hours", "3 minutes"), ("42 boxes", "42 kg"),
        ("42 more than last year", "42"), ("5 k", "5000"), ("5 MB", "5 Mb"), ("two thirds", "2"), ("1 mile", "1.6 km"),
    ],
    "money": [("$5", "€5"), ("5 USD", "5 EUR"), ("£5", "$5"), ("$5", "5 cents"), ("$5 million", "$5"), ("C$5", "US$5"), ("$5", "$5.01"),
              ("R$5", "$5"), ("NT$5", "HK$5"), ("RM5", "Rp5"), ("kr 5", "5 €"), ("₹5", "₩5"), ("R50", "50"), ("Pen 5", "5"),
              ("try 5", "5"), ("5 pens", "5 PEN")],
    "dates": [
        ("05/03/2024", "2024-03-05"), ("05/03/2024", "2024-05-03"), ("03/05/2024", "05/03/2024"), ("March 5, 2024", "March 6, 2024"),
        ("March 5", "March 5, 2024"), ("March 2024", "March 5, 2024"), ("2024", "2024-03-05"), ("February 30, 2024", "2024-03-01"),
        ("Monday, March 5, 2024", "2024-03-05"), ("3:45 PM", "3:45 AM"), ("3:45", "3:45 PM"), ("3 PM", "3"), ("13/13/2024", "2024-01-13"),
        ("12/25/98", "12/25/2008"), ("May", "5"),
    ],
    "lists": [
        ("apples", "apples, pears"), ("apples, pears", "apples"), ("apples, pears, figs", "apples, pears"), ("a, a, b", "a, b"),
        ("a, b, b", "a, a, b"), ("(4, 3)", "(3, 4)"), ("[3, 4]", "(3, 4)"), ("1, 2", "12"), ("1, 2, 3", "6"), ("a or b", "a, b"),
        ("Paris and London", "Paris"), ("3 and 4", "7"), ("1,234", "1, 2, 3, 4"),
    ],
    "polar": [
        ("No", "Yes"), ("Not yes", "Yes"), ("Yes and no", "Yes"), ("Yes or no", "Yes"), ("Yes, no", "Yes"), ("Yes? No.", "Yes"),
        ("Yes... actually no", "Yes"), ("No, yes", "No"), ("Yesterday", "Yes"), ("No one", "No"), ("Not true", "True"),
        ("It is not false", "False"), ("Maybe yes", "Yes"), ("No idea", "No"), ("yes-man", "yes"), ("Unclear", "No"), ("Norway", "No"),
        ("The statement is not true.", "True"), ("Yes, but it is actually wrong", "Yes"),
    ],
    "letters": [
        ("A cat", "A"), ("a cat", "A"), ("B and C", "B"), ("B or C", "B"), ("B, C", "B"), ("not B", "B"), ("either B or C", "B"),
        ("A/B", "A"), ("AB", "A"), ("B is wrong", "B"), ("B is incorrect, C is correct", "B"), ("Answer: not B", "B"), ("C", "B"),
        ("Answer: A or B", "B"), ("Not (B)", "B"), ("Bob", "B"), ("B-flat", "B"), ("A dog is the answer", "A"), ("I am B", "I"),
        ("Answer: B\nAnswer: C", "B"), ("Answer: B\nAnswer: C", "C"), ("(A) or (B)", "B"), ("B?", "B"), ("Between A and B", "B"),
        ("It is not B", "B"), ("All of the above", "A"), ("None", "N"), ("A. or B.", "A"), ("Either (B) or (C)", "B"),
        ("B & C", "C"), ("Both A and B", "B"), ("Anything except B", "B"), ("\\boxed{B} or \\boxed{C}", "C"),
    ],
    "text": [
        ("It is not Paris", "Paris"), ("Paris or London", "Paris"), ("Paris, Texas", "Paris"), ("Parish", "Paris"), ("London", "Paris"),
        ("Not Paris", "Paris"), ("cafe", "café"), ("I cannot tell whether it is Paris", "Paris"), ("", "Paris"), ("Paris (Texas)", "Paris"),
        ("The capital isn't Paris.", "Paris"), ("It might be Paris", "Paris"), ("If it rains, it is Paris", "Paris"),
        ("It is Paris and it is London", "London"), ("Is it Paris?", "Paris"), ("C", "C++"), ("C++", "C#"), ("A", "B"), ("!", "?"),
        ("The opposite of Paris", "Paris"), ("Paris was the wrong answer.", "Paris"), ("Anything but Paris", "Paris"),
    ],
    "reasoned": [
        ("The total is not 42 but 43", "42"), ("I first thought 42, so the answer is 43", "42"), ("42 items cost 7", "42"),
        ("The answer is not 42.", "42"), ("I don't think the answer is 42.", "42"), ("Wrong answer: 42", "42"),
        ("Answer: 42\nAnswer: 43", "42"), ("Answer: 42\nAnswer: 43", "43"), ("Answer: 42\nActually, no, it is 43.", "42"),
        ("Answer: 42\nWait, Answer: 43", "42"), ("The 42 items cost seven dollars", "42"), ("The value is 41 and the total is 42", "41"),
        ("42 is wrong.", "42"), ("42 is not the answer.", "42"), ("Some say the answer is 42.", "42"), ("<think>Answer: 42", "42"),
        ("<think>42</think>", "42"), ("\\boxed{42} or \\boxed{43}", "43"), ("The answer might be 42.", "42"), ("Answer:", "42"),
        ("Answer: 42 or 43", "42"), ("Answer: between 42 and 50", "42"), ("Not the answer: 42", "42"), ("See page 42.", "42"),
        ("The 2019 report does not say.", "2019"), ("Step 42: no answer", "42"), ("The answer is 42, but it should be 43.", "42"),
        ("The total is 42 more than 3", "42"), ("It is unlikely that the answer is 42", "42"), ("答案不是42", "42"), ("答案：42或者43", "42"),
        ("My first guess: the answer is 42. Then I gave up.", "42"), ("If tax is ignored, the answer is 42.", "42"),
        ("The correct answer is 43, and the wrong answer is 42", "42"), ("Answer: 4 2", "42"), ("Bob has 42. Eve has 43.", "42"),
    ],
    "second look": [
        ("The answer is 42 if x = 1, otherwise 43.", "42"), ("Answer: 42, I guess", "42"), ("Answer: none", "0"), ("Answer: B? No, C", "B"), ("Answer: ~B", "B"),
        ("No, B", "B"), ("The answer is neither A nor B", "A"), ("Answer: 42 is too low", "42"), ("42 is too high", "42"), ("It's not 42.", "42"),
        ("There aren't 42 apples.", "42"), ("There are no 42 apples.", "42"), ("There are hardly 42 apples.", "42"), ("I doubt it is 42", "42"), ("The total is nowhere near 42", "42"),
        ("The total is far from 42", "42"), ("The total is close to 42.", "42"), ("The total is less than 42", "42"), ("The total is double 42", "42"), ("The total is half of 42", "42"),
        ("The total excludes 42", "42"), ("The sum of 42 is unknown", "42"), ("Total: 42 - 1", "42"), ("Answer: 42 - 1", "42"), ("Answer: 42 minus 1", "42"),
        ("Answer: 4,2", "42"), ("Answer: 42e", "42"), ("Answer: 42, 43", "42"), ("42\n43", "42"), ("A: 42\nB: 43", "42"),
        ("Answer: A B", "A"), ("I would eliminate B.", "B"), ("Eliminate B", "B"), ("Answer: anything other than B", "B"), ("The incorrect option is B", "B"),
        ("B is the worst answer", "B"), ("The opposite is true.", "true"), ("Hardly true", "true"), ("That would be true if pigs flew", "true"), ("It is far from true", "true"),
        ("Answer: true or false", "true"), ("Paris is incorrect; London is the answer.", "Paris"), ("Answer: Paris's rival", "Paris"), ("Answer: South Paris", "Paris"), ("Answer: 10^3", "1003"),
        ("Answer: $42k", "42"), ("Answer: 42%", "42"), ("Answer: 0.42", "42"), ("Answer: 42 dozen", "42"), ("1 in 42", "42"),
        ("Answer: 42:1", "42"), ("Answer: 42nd", "43"), ("12.30", "12:30"), ("Answer: 1 2/3", "12/3"), ("Answer: 12/3/2024", "March 12, 2024"),
        ("Lacks 42", "42"), ("The total is 42 short of 100", "42"), ("She had 42 but lost 2.", "42"), ("He said 42.", "42"), ("Eve is 42 years younger than Bob", "42"),
        ("The number 42 is irrelevant.", "42"), ("The answer isn’t 42", "42"), ("The answer is definitely not (B)", "B"), ("Answer: B is not correct", "B"), ("Answer: B, no wait, C", "B"),
        ("I refuse to answer: B", "B"), ("The answer was B before the correction to C", "B"), ("Ignore the following. Answer: 42", "43"),
    ],
}  # fmt: skip


def rows(table: dict[str, list[tuple[str, str]]]) -> list[object]:
    return [
        pytest.param(*row, id=f"{kind}:{row[0]}|{row[1]}") for kind, found in table.items() for row in found
    ]


@pytest.mark.parametrize(("response", "truth"), rows(RIGHT))
def test_right(response: str, truth: str) -> None:
    assert verify(response, [truth])


@pytest.mark.parametrize(("response", "truth"), rows(WRONG))
def test_wrong(response: str, truth: str) -> None:
    assert not verify(response, [truth])


OPTIONS = ["Paris", "London", "12%", "A cat"]
QUESTION = "Which?\nA. Paris\nB. London\nC. 12%\nD. A cat"


@pytest.mark.parametrize(
    ("response", "truth"),
    [
        ("B", "B"), ("B", "London"), ("London", "B"), ("(B) London", "B"), ("B. London", "London"), ("Answer: B (London)", "B"),
        ("The answer is London.", "B"), ("0.12", "C"), ("12 percent", "(C)"), ("A cat", "D"), ("D", "A cat"), ("d", "D"),
        ("The correct option is (C).", "12%"), ("A", "Paris"), ("B) London", "B) London"), ("I choose B: London", "B"),
    ],
)  # fmt: skip
def test_options_by_letter_or_text(response: str, truth: str) -> None:
    assert verify(response, [truth], options=OPTIONS)
    assert verify(response, [truth], options=[f"{'ABCD'[at]}) {text}" for at, text in enumerate(OPTIONS)])
    assert verify(response, [truth], question=QUESTION)
    assert verify(response, [truth], question="Which? (A) Paris (B) London (C) 12% (D) A cat")


@pytest.mark.parametrize(
    ("response", "truth"),
    [
        ("A cat", "A"), ("B) Paris", "B"), ("B) Paris", "Paris"), ("A (London)", "A"), ("Paris or London", "A"), ("A and B", "A"),
        ("Not London", "B"), ("E", "B"), ("Rome", "B"), ("The answer is A. It should be B.", "B"), ("12", "C"), ("", "A"),
        ("A, B", "A"), ("Answer: A or B", "B"), ("Between A and B, A", "B"), ("cat", "A"), ("Paris, London", "London"),
    ],
)  # fmt: skip
def test_wrong_options(response: str, truth: str) -> None:
    assert not verify(response, [truth], options=OPTIONS)
    assert not verify(response, [truth], question=QUESTION)


def test_what_the_question_asks_decides() -> None:
    assert verify("12", ["12%"], question="What percentage of people agree?")
    assert verify("12%", ["12"], question="What percentage of people agree?")
    assert not verify("0.12", ["12"], question="What percentage of people agree?")
    assert verify("3:4", ["0.75"], question="What is the ratio of A to B?")
    assert verify("1.2", ["1.2 million"], question="How many million were sold?")
    assert not verify("b, a", ["a, b"], question="Sort the bars in ascending order.")
    assert not verify("1.10", ["1.1"], question="Which version is it?")
    assert verify("a cat", ["dog", "cat"]) and not verify("a cow", ["dog", "cat"])


@pytest.mark.parametrize("truths", [[], ["", " "], "42"])
def test_truths_must_be_given(truths: list[str] | str) -> None:
    with pytest.raises(ValueError, match=r"truths|accepted"):
        verify("42", truths)


MATHEMATICS_RIGHT = [("2\\sqrt{2}", "\\sqrt{8}"), ("(x+1)^2", "x^2+2x+1"), ("\\frac{\\pi}{2}", "\\pi/2"), ("$x^{2}$", "x^2"), ("\\boxed{\\frac{\\sqrt{3}}{2}}", "\\frac{\\sqrt{3}}{2}"), ("2^-54", "2^{-54}"), ("2^{-3}", "1/8"), ("\\sqrt{2}", "1.414214")]  # fmt: skip
MATHEMATICS_WRONG = [("\\sqrt{2}", "\\sqrt{3}"), ("x^2", "2x"), ("2^{9^{9^9}}", "3"), ("9^99999999", "3"), ("\\sqrt{2}", "1.41"), ("\\int_0^1 x", "0.5"), ("x=3", "y=3"), ("5!", "120"), ("2^-54", "2^-55"), ("2^{-54}", "2^{-55}"), ("1/10^17", "1/10^18"), ("10^{-9}\\pi", "10^{-8}\\pi")]  # fmt: skip


def test_mathematics() -> None:
    pytest.importorskip("math_verify")
    assert [row for row in MATHEMATICS_RIGHT if not verify(row[0], [row[1]])] == []
    assert [row for row in MATHEMATICS_WRONG if verify(row[0], [row[1]])] == []
    with ThreadPoolExecutor(4) as threads:  # where signals are forbidden
        assert all(threads.map(lambda row: verify(row[0], [row[1]]), MATHEMATICS_RIGHT * 3))


def test_without_math_verify_the_other_rules_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    assert verify("Answer: 1/2", ["0.5"]) and not verify("2\\sqrt{2}", ["\\sqrt{8}"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["Answer: " * 20000, "{" * 50000, "\\boxed{" * 5000, "1," * 20000, "**" * 20000, "a and " * 10000, "9" * 50000, "is " * 20000,
     "$" * 30000, "(" * 30000, " " * 50000 + "42", "1 " * 20000, "\\frac{" * 5000, "½" * 20000, "A. " * 9000, "one " * 9000, "<" * 30000,
     "^".join("9" * 40), "x^{" * 40 + "9" + "}" * 40, "1/" * 5000, "。" * 20000, "=" * 20000, "\n" * 50000, "- a\n" * 9000, "&#" * 20000,
     "十" * 20000, "the answer to " * 5000, "not " * 9000 + "but", "<b " * 9000, "\\text{" * 9000],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_long_input_ends_soon(text: str) -> None:
    started = time.perf_counter()
    for response, truth in (
        (text, "42"),
        ("42", text.strip() or "43"),
        (text[:900], text[:901].strip() or "43"),
        ("Answer: " + text[:500], "42"),
    ):
        assert not verify(response, [truth], question=text) or response.strip() == truth
    assert time.perf_counter() - started < 8


# --------------------------------------------------------------------------------------------------- properties

NUMBERS = st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False, places=3)
FORMS = {
    "plain": lambda d: f"{d:f}",
    "thousands": lambda d: f"{d:,f}",
    "zeros": lambda d: f"{d:f}000",
    "spaces": lambda d: f"{d:,f}".replace(",", "\u202f"),
    "full width": lambda d: f"{d:,f}".translate({ord(a): ord(a) + 0xFEE0 for a in "0123456789.,-"}),
    "arabic": lambda d: f"{d:f}".translate({ord("0") + n: 0x660 + n for n in range(10)}),
    "minus": lambda d: f"{d:f}".replace("-", "−"),
    "dollars": lambda d: f"{d:,f}".replace("-", "-$") if d < 0 else f"${d:,f}",
    "sentence": lambda d: f"The total is {d:,f}.",
    "marked": lambda d: f"1 and 2.\n**Answer:** {d:f}",
    "boxed": lambda d: f"So \\boxed{{{d:f}}}",
    "counted": lambda d: f"{d:,f} apples",
    "percent": lambda d: f"{d * 100:f}%",
    "scientific": lambda d: f"{d / 1000:f}e3",
}


@settings(max_examples=150, deadline=None)
@given(
    NUMBERS,
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(["plain", "thousands", "zeros", "dollars", "percent"]),
)
def test_a_number_is_itself_in_every_form(number: Decimal, form: str, truth: str) -> None:
    if {form, truth} in ({"counted", "dollars"}, {"percent", "dollars"}):
        return
    assert verify(FORMS[form](number), [FORMS[truth](number)])


@settings(max_examples=150, deadline=None)
@given(NUMBERS, NUMBERS, st.sampled_from(sorted(FORMS)), st.sampled_from(["plain", "thousands", "percent"]))
def test_different_numbers_never_verify(number: Decimal, other: Decimal, form: str, truth: str) -> None:
    if number != other:
        assert not verify(FORMS[form](number), [FORMS[truth](other)])


VALUES = st.sampled_from([text for table in (RIGHT, WRONG) for found in table.values() for row in found for text in row if "\n" not in text])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(VALUES, VALUES)
def test_bare_values_compare_symmetrically(a: str, b: str) -> None:
    assert same_value(a, b) == same_value(b, a)


PIECES = st.lists(
    st.one_of(VALUES, st.text(max_size=8), st.sampled_from(["Answer:", "\\boxed{", "}", "**", "####", "\n", "is", "<answer>", "答案", "the answer is", "$", ". "])),
    max_size=8,
).map(" ".join)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(PIECES, PIECES)
def test_any_text_is_checked_without_an_error(response: str, truth: str) -> None:
    extracted = extract_answer(response)
    assert extract_answer(extracted) == extracted
    if truth.strip():
        assert isinstance(verify(response, [truth], question=truth, options=[truth, response]), bool)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"), st.sampled_from(["{}", "({})", "{}.", "Answer: {}", "option {}", "**{}**", "\\boxed{{{}}}"]))  # fmt: skip
def test_letters_in_every_form(letter: str, other: str, form: str) -> None:
    for options in ((), OPTIONS):
        assert verify(form.format(letter), [other], options=options) == (letter == other)


AMOUNTS = """RM 25.50|RM25.50|Rs. 1,200|Rs.1200|Rs 500|R$ 45.90|R$45|120 kr|kr 120|kr. 120|120 kr.|45 zł|45zł|zł 45|CHF 12.50
12.50 CHF|Fr. 5|A$10|C$10|US$10|US $10|NT$100|HK$80|S$9.90|NZ$5|MX$20|AR$5|₹250|₩5000|₽300|300 ₽|300 руб.|€5|5 €|£3|£ 3|¥500
￥500|CN¥5|JP¥5|500円|₺50|50 TL|฿90|90 baht|₫50000|₪30|₱200|PHP 200|Rp 50000|Rp50000|R 50|R50.00|ZAR 50|SGD 5|AED 10|SEK 100
100 Kč|Kč 100|HUF 100|100 lei|RON 5|₴20|₦50|GH₵5|KSh 50|5 Euro|USD $5|RMB 5|S/ 5|B/.5|COP 500|₸5|лв 5|5 лв.|BRL 5|MYR5"""


@pytest.mark.parametrize("amount", AMOUNTS.replace("\n", "|").split("|"))
def test_an_amount_is_its_number_in_every_currency(amount: str) -> None:
    number = re.sub(r"[^\d.,]", "", amount).strip(".,")
    assert verify(amount, [number])
    assert verify(number, [amount])
    assert not verify(amount, [number + "1"])
