"""Check responses against accepted answers with rules alone. The package's docstring lists the rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from fcot_vl.verify.dates import read_date
from fcot_vl.verify.extract import (
    DOUBT,
    HEARSAY,
    RETRACTION,
    Final,
    extract_answer,
    find_final,
    sentences,
)
from fcot_vl.verify.options import (
    bare_options,
    choose,
    chosen_letter,
    letter_of,
    listed_options,
    split_label,
)
from fcot_vl.verify.quantities import Quantity, read_quantity
from fcot_vl.verify.text import clean, plain, unwrap
from fcot_vl.verify.values import FALSE, LONGEST_TEXT, TRUE, same_value

POLAR = re.compile(
    r"(yes|no|true|false)\b(?=\s*(?:$|[,.;:!]|\s-|\s(?:because|since|as|it|there|the|this|that|they|he|she|we|i|you)\b))(.*)",
    re.IGNORECASE | re.DOTALL,
)
LEAD = re.compile(
    r"^(?:(?:so|thus|therefore|hence|finally|overall|in\s+total|in\s+conclusion|then)\b[\s,:]*)+|^(?:in|on|at)\s+(?=\S)|^=\s*",
    re.IGNORECASE,
)
COPULA = re.compile(
    r"(?<![A-Za-z])(?:is|are|was|were|equals?|comes\s+to|amounts\s+to|adds\s+up\s+to)(?![A-Za-z])\s*:?|=|:(?!\d)|(?<=')s(?=\s)|等于|是|为"
)
VERB = re.compile(
    r"(?<![A-Za-z])(?:costs?|has|have|had|contains?|totals?|weighs?|measures?|shows?|reads?|says?|gives?|makes?|get|count(?:ed)?)"
    r"(?![A-Za-z])\s*:?",
    re.IGNORECASE,
)
NOT_BUT = re.compile(
    r"^(.*?\b(?:is|are|was|were))\s+not\s+[^,]{1,60}?,?\s+but\s+(?:rather\s+)?(.+)$", re.IGNORECASE
)
CONTRAST = re.compile(r"^(.{1,60}?),\s+(?:and\s+)?not\s+([^,;]{1,40}?)\.?$", re.IGNORECASE)  # 42, not 43
GLOSS = re.compile(r"^([^()]{1,40}?)\s*\(([^()]{1,40})\)$")  # 42 (forty-two)
THE_ANSWER = re.compile(
    r"^(.{1,80}?)\s+(?:is|are|was)\s+(?:the|our|my)\s+(?:final\s+|correct\s+|right\s+)?(?:answer|result|total|sum|solution)$",
    re.IGNORECASE,
)


def verify(response: str, truths: Sequence[str], *, question: str = "", options: Sequence[str] = ()) -> bool:
    """Return True if the final answer of a response equals one of the accepted answers under the rules of this package.

    Args:
        response: A bare answer, or reasoning that ends in one.
        truths: Accepted answers. Matching one of them is enough.
        question: The question, for rules that depend on it: options that it lists, percent, an order.
        options: Texts of a multiple choice in order, with or without their letters.

    Returns:
        True only if a rule accepts the answer. Doubtful, hedged, retracted and contradicted answers give False.

    Raises:
        ValueError: If there is no accepted answer, or if `truths` is a string instead of a list.
    """
    if isinstance(truths, str):
        raise ValueError(
            f"truths must be a list of accepted answers, got the string {truths!r}; write [{truths!r}]"
        )
    truths = [truth for truth in truths if truth.strip()]
    if not truths:
        raise ValueError("there is no accepted answer to verify against; leave such a sample out")
    given = bare_options(options) if options else listed_options(question)
    final = find_final(response)
    asked = question if options or not given else question[: question.find(given[0])]  # without its options
    same = partial(same_value, question=asked)
    if len(response) <= LONGEST_TEXT and any(
        plain(response) == plain(x) and same(response, x) for x in truths
    ):
        return True  # equal word for word, whatever the words are
    if not final.text or len(final.text) > LONGEST_TEXT:
        return False
    if not _stands(final, same):
        return False
    answer = _without_echo(extract_answer(final.text) if final.marked else final.text, same)
    return any(_matches(answer, truth, given, same) for truth in truths)


def _stands(final: Final, same: Callable[[str, str], bool]) -> bool:
    """Return True if no text around a final answer denies it, retracts it, or gives another answer."""
    if not final.marked:
        return True
    if DOUBT.search(final.before) or HEARSAY.search(final.before) or RETRACTION.search(final.after):
        return False
    for earlier, between in final.earlier:
        other = extract_answer(earlier)
        if same(other, final.text) or RETRACTION.search(between):
            continue
        if _kind(other) == _kind(final.text) or len(other.split()) <= 4:
            return False
    return True


def _without_echo(answer: str, same: Callable[[str, str], bool]) -> str:
    """Remove a contrast (`42, not 43`) or a restatement (`42 (forty-two)`) from an answer."""
    if (found := CONTRAST.match(answer)) and _kind(found[1]) == _kind(found[2]) in ("letter", "number"):
        return found[1]
    if (found := GLOSS.match(answer)) and same(found[1], found[2]):
        return found[1]
    return answer


def _kind(text: str) -> str:
    """Return a coarse kind of value, to tell a contradicting answer from words that happen to follow a mark."""
    if letter_of(text):
        return "letter"
    if POLAR.fullmatch(text):
        return "polar"
    if read_date(text):
        return "date"
    return "number" if read_quantity(text) else "text"


def _matches(answer: str, truth: str, options: Sequence[str], same: Callable[[str, str], bool]) -> bool:
    truth = unwrap(clean(truth))
    if len(truth) <= 200 and (marked := find_final(truth)).marked and not marked.before.strip():
        truth = marked.text
    if options:
        wanted = choose(truth, options, same)
        if wanted is not None:
            if RETRACTION.search(answer) and not same(answer, truth):
                return False
            return any(
                choose(claim, options, same) == wanted for claim in [answer, *claims(answer)][:4]
            ) and not (_several_letters(answer))
    letter = letter_of(truth)
    if letter is not None and (letter.isupper() and not truth.strip().islower()):
        if DOUBT.search(answer) or RETRACTION.search(answer) or _several_letters(answer):
            return False
        return chosen_letter(answer) == letter
    label = split_label(truth)
    for claim in [answer] if "=" in truth else [answer, *claims(answer)]:  # x = 3 is not y = 3
        if same(claim, truth) or _polar(claim, truth):
            return True
        split = split_label(claim)
        if label is not None:
            if letter_of(claim) == label[0] or (split is None and same(claim, label[1])):
                return True
            if split is not None and split[0] == label[0] and same(split[1], label[1]):
                return True
        elif split is not None and same(split[1], truth):
            return True
    return False


def _several_letters(answer: str) -> bool:
    """Return True if an answer names more than one option, as in `B and C` or `either A or B`."""
    return (
        re.search(
            r"(?<![A-Za-z])[(\[]?[A-J][)\].]?\s*(?:,|/|\bor\b|\band\b|&)\s*(?:option\s+)?[(\[]?[A-J][)\].]?(?![A-Za-z'])",
            answer,
        )
        is not None
    )


def _polar(answer: str, truth: str) -> bool:
    """Compare yes and no, or true and false. An explanation after the answer is accepted if it does not retract it."""
    wanted = plain(truth)
    if wanted not in TRUE | FALSE:
        return False
    said = plain(answer)
    if said in TRUE | FALSE:
        return (said in TRUE) == (wanted in TRUE)
    found = POLAR.fullmatch(answer.strip())
    if found is None:
        return False
    opposite = FALSE if found[1].casefold() in TRUE else TRUE
    words = set(re.findall(r"\w+", found[2].casefold()))
    if words & opposite or re.match(r"\s*(?:or|and)\b", found[2]) or RETRACTION.search(found[2]):
        return False
    return (found[1].casefold() in TRUE) == (wanted in TRUE)


def claims(answer: str) -> list[str]:
    """Return the values that a short sentence asserts: after its verb, or all of it except an opening word.

    A sentence with a doubt, a negation, or several numbers after verbs asserts nothing.
    """
    found: list[str] = []
    lines = sentences(answer)
    if len(lines) > 1 and not RETRACTION.search(" ".join(lines[1:])) and not _numbers_differ(lines):
        found.append(unwrap(lines[0]))
    sentence = unwrap(lines[-1]) if lines else ""
    if len(sentence.split()) > 40 or not sentence:
        return found
    lead = sentence
    while LEAD.match(lead):
        lead = LEAD.sub("", lead, count=1)
    if lead != sentence and lead:
        found.append(unwrap(lead))
    if (contrast := NOT_BUT.match(lead)) and not DOUBT.search(contrast[1] + contrast[2]):
        return [*found, unwrap(contrast[2])]
    if DOUBT.search(lead) or "?" in lead:
        return found
    if subject := THE_ANSWER.match(lead):
        return [*found, unwrap(subject[1])]
    copulas = list(COPULA.finditer(lead))
    verbs = copulas or list(VERB.finditer(lead))
    behind = [lead[verb.end() :].strip() for verb in verbs]
    numbers = [(text, quantity) for text in behind if (quantity := _loose(text)) is not None]
    if numbers and len({quantity.value for _, quantity in numbers}) == 1:
        found.append(_bare(numbers[-1][0]))
    if len(verbs) == 1 and behind[0] and not numbers:
        found.append(unwrap(behind[0]))
    equation = re.search(r"=\s*([^=]+)$", lead)
    if equation and len(lead) < 200 and (not numbers or len(copulas) > 1):
        found.append(unwrap(equation[1]))
    return found


def _numbers_differ(lines: Sequence[str]) -> bool:
    """Return True if the sentences after the first contain a number that the first does not."""
    inside = set(re.findall(r"\d[\d.,]*", lines[0]))
    return bool(inside) and bool(
        set(re.findall(r"\d[\d.,]*\d|\d", " ".join(lines[1:]))) - {x.rstrip(".,") for x in inside}
    )


def _loose(text: str) -> Quantity | None:
    return read_quantity(unwrap(text), 6)


def _bare(text: str) -> str:
    """Cut the words after a quantity until the strict reader accepts it."""
    words = unwrap(text).split()
    for length in range(len(words), 0, -1):
        if read_quantity(" ".join(words[:length])) is not None:
            return " ".join(words[:length])
    return text
