"""Check with rules alone, without a model, that an answer keeps its facts when rewritten. In doubt, it is rejected.

`rewrite` keeps the original if `reason_to_reject` returns one. A false rejection costs one rewrite; a false acceptance
costs a wrong label. Both texts are first normalized (`tokens`): full-width characters, thousands separators, percent
words, minus signs and currencies get one form. Every fact of the original must then be in the rewrite as whole tokens.
The rewrite must not add a number, an option, a negation or a hedge.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise


def _words(text: str) -> set[str]:
    return set(text.split())


SHORT = 20  # maximum tokens of a short answer; longer ones are only checked for numbers, names and quotations
EXTRA_CHARACTERS = 300  # characters that a rewrite may have in addition to three times those of the original

JOINED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\u0e00-\u0e7f"  # scripts without blanks between words
FILLER = _words(
    "a an the is are was were be been being it its this that of to in on at by for from with and or as"
)
NEGATIONS = _words(
    "not no never neither nor none nothing without cannot except excluding unlike wrong incorrect incorrectly false "
    "untrue hardly instead rather denies denied excludes excluded isnt"
)
NEGATIONS_JOINED = re.compile(
    r"不是|并非|並非|没有|沒有|而非|不对|错误|錯誤|不正确|ではない|ではありません|아니"
)
NUMBER_WORDS = _words(
    "zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands "
    "million millions billion billions trillion dozen half third quarter double twice triple"
)
HEDGES = re.compile(
    r"(?:\b(?:about|around|approximately|approx\.?|roughly|nearly|almost|over|under|above|below|between|up to|"
    r"more than|less than|fewer than|greater than|higher than|lower than|at least|at most|plus or minus|circa)"
    r"|[~≈><±≥≤]|大约|大約|约为|約|约|超过|超過|不到|至少|最多|将近|接近|低于|高于)\s*(?=[$€£¥]?\s*-?\d)"
)
REFUSALS = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|afraid|not able)|as an ai|i (?:cannot|can't|can not|do not know|don't know)|"
    r"(?:unable|impossible|not possible) to (?:determine|answer|read|say|rewrite)|cannot be determined)\b"
    r"|抱歉|对不起|無法|无法|作为一个?ai|申し訳"
)
ABOUT_ITSELF = re.compile(r"</?think|\brewrit|\brephras|\bparaphras|\bthe original answer\b|改写|重写")
CURRENCIES = {  # one sign per currency, written after the number
    "$": r"us\$|usd\b|us dollars?\b|dollars?\b|美元",
    "€": r"eur\b|euros?\b|欧元",
    "£": r"gbp\b|pounds? sterling\b|英镑",
    "¥": r"jpy\b|cny\b|rmb\b|yen\b|yuan\b|人民币|日元|元|円",
}
LETTER = re.compile(r"^\W*(?i:option |answer:? )?\(?([A-H])(?:[.):,]+\s*(.*))?$", re.DOTALL)


def reason_to_reject(original: str, rewritten: str, question: str = "") -> str | None:
    """Return the reason why `rewritten` cannot replace `original`, or None if it can.

    Args:
        original: Answer of the data, taken as the truth.
        rewritten: Rewritten answer.
        question: Question. Its numbers and options may be repeated, except as the answer.

    Returns:
        Reason for the rejection. The text before its first colon is one of a few kinds, for counting.
    """
    if not rewritten.strip():
        return "empty"
    if len(rewritten) > 3 * len(original) + EXTRA_CHARACTERS:
        return f"too long: {len(rewritten)} characters for {len(original)}"
    before, after, asked = (fold(text) for text in (original, rewritten, question))
    for kind, pattern in (("refusal", REFUSALS), ("about itself", ABOUT_ITSELF)):
        found = pattern.search(after)
        if found and not pattern.search(before):
            return f"{kind}: {found.group()}"
    letter, rest = option_of(original)
    facts, there = tokens(rest), tokens(rewritten)
    if not facts and not letter and original.strip() not in rewritten:
        return f"word missing: {original.strip()}"
    return (
        (_letter(letter, original, rewritten) if letter else None)
        or _missing(rest, facts, there)
        or _numbers(facts, there, tokens(question))
        or _turned(before, after, asked)
        or _others(f"{rest} {options_of(question).get(letter, '')}", there, question)
    )


def fold(text: str) -> str:
    """Normalize a text for reading, in lower case: widths, quotes, minus signs, percent, currencies, thousands."""
    text = re.sub(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))", "", text)  # 1 234 with a thin space
    text = unicodedata.normalize("NFKC", text).casefold()
    text = text.translate(str.maketrans("’‘“”−–—", "''\"\"-- "))
    text = re.sub(r"百分之\s*(\d[\d.,]*)", r"\1%", text)
    text = re.sub(r"(?<=\d)\s*(?:%|percent\b|per cent\b|pct\b)", "%", text)
    text = re.sub(r"\b(?:minus|negative)\s+(?=[$€£¥]?\d)|负(?=\d)", "-", text)
    for sign, words in CURRENCIES.items():
        text = re.sub(rf"(?<=\d)\s*(?:{words})", f" {sign} ", text)
        text = re.sub(rf"\b(?:{words})\s*(?=-?\d)", sign, text)
    return re.sub(r"(-?)\s*([$€£¥])\s*(-?\d[\d.,]*\d|-?\d)", r" \1\3 \2 ", text)  # -$5 -> -5 $


def tokens(text: str) -> list[str]:
    """Split a text into words, numbers and signs in one form. Runs of scripts without blanks are one token.

    A number is a whole token, so 42 does not match in 142, 4.2, -42, 42% or 42nd. Dates, times and codes are also
    single tokens.
    """
    text = fold(text)
    text = re.sub(rf"(?<=[{JOINED}])(?=[^{JOINED}\s])|(?<=[^{JOINED}\s])(?=[{JOINED}])", " ", text)
    text = re.sub(r"\s*(?<![<>!])([=+×÷])\s*(?=[-\d(])", r" \1 ", text)  # 12+30=42
    found = []
    for word in re.split(r"[\s;|]+|(?<!\d),|,(?!\d)|、|。|，", text):
        word = re.sub(r"^[^\w$€£¥%°.+\-=×÷<>≥≤±~≈]+|[^\w$€£¥%°+=×÷#]+$", "", word).strip("*_`\"'")
        word = re.sub(r"^[.+\-]+(?!\.?\d)", "", word).removesuffix("'s")
        word = re.sub(r"^(-?)\.(?=\d)", r"\g<1>0.", word)
        if re.search(r"\w|[$€£¥%°]", word):
            found.append(number(word))
    return found


def number(word: str) -> str:
    """Normalize a number: 1,234.50 becomes 1234.5. 007, dates and other words do not change."""
    sign, digits, percent = re.fullmatch(r"([+-]?)(.*?)(%?)", word, re.DOTALL).groups()  # type: ignore[union-attr]
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", digits):
        digits = digits.replace(",", "")
    elif re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d+", digits):
        digits = digits.replace(".", "").replace(",", ".")
    if not re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", digits) or re.match(r"0\d", digits):
        return word
    return f"{'-' if sign == '-' else ''}{Decimal(digits).normalize():f}{percent}"


def option_of(answer: str) -> tuple[str, str]:
    """Return the letter and the text of an answer such as `B`, `(B)` or `B. Paris`.

    For other answers, return an empty letter and the whole answer.
    """
    found = LETTER.match(unicodedata.normalize("NFKC", answer).strip())
    return (found.group(1), found.group(2) or "") if found else ("", answer)


def options_of(question: str) -> dict[str, str]:
    """Return the options of a question by letter, if each is on its own line or follows its letter in brackets."""
    text = unicodedata.normalize("NFKC", question)
    found = re.findall(r"(?:^|\n|\s)\(?([A-H])[).:]\s*(.+?)(?=\s*(?:\n|\s\(?[A-H][).:]\s|$))", text)
    options = {letter: option.strip() for letter, option in found}
    if not options and text.count(" / ") >= 2:  # MiniDoc: a question, then options without letters
        listed = re.split(r"(?<=\?)\s+", text, maxsplit=1)[-1].split(" / ")
        options = {str(at): option.strip() for at, option in enumerate(listed)}
    return options


def _missing(original: str, facts: Sequence[str], there: Sequence[str]) -> str | None:
    """Return the first fact that is missing in the rewrite. In a short answer, every content word counts, in order."""
    line = f" {' '.join(there)} "
    if len(facts) <= SHORT:
        return _in_order([fact for fact in facts if fact not in FILLER] or facts, line)
    quoted = [token for text in re.findall(r'["“「『](.+?)["”」』]', original) for token in tokens(text)]
    named = tokens(" ".join(re.findall(r"(?<![.!?:]\s)(?<!^)\b[A-Z][\w'’-]*", original)))
    for fact in [*quoted, *named]:
        if fact not in FILLER and (lost := _in_order([fact], line)):
            return lost
    return _in_order([fact for fact in facts if re.search(r"\d", fact)], line)


def _in_order(facts: Sequence[str], line: str) -> str | None:
    at = 0
    for fact in facts:
        joined = re.match(rf"[{JOINED}]", fact)
        needle = fact if joined else f" {fact} "
        at = line.find(needle, at)
        if at < 0:
            return _lost(fact)
        at += len(needle) - (not joined)  # the blank after a word is also the one before the next word
    return None


def _lost(fact: str) -> str:
    return f"{'number' if re.search(r'[0-9]', fact) else 'word'} missing: {fact}"


def _numbers(facts: Sequence[str], there: Sequence[str], asked: Sequence[str]) -> str | None:
    """Find a number, number word or currency that neither the original nor the question has."""
    allowed = set(facts) | set(asked)
    for token in there:
        words = re.split(r"[-']", token)
        numeric = re.search(r"\d|[$€£¥]", token) or any(word in NUMBER_WORDS for word in words)
        if numeric and token not in allowed:
            return f"another number: {token}"
    for one, after in pairwise(there):  # 42 million, 42万
        scale = after in NUMBER_WORDS or after[0] in "百千万萬亿億"
        if scale and one in facts and re.search(r"\d$", one) and f"{one} {after}" not in " ".join(facts):
            return f"another number: {one} {after}"
    return None


def _turned(before: str, after: str, asked: str) -> str | None:
    """Find a negation, a swap of yes and no, or a hedge that the original does not have."""
    answer, rewritten = (re.findall(r"[a-z]+(?:'t)?", text) for text in (before, after))
    for one, other in (("yes", {"no", "not"}), ("no", {"yes"}), ("true", {"false"}), ("false", {"true"})):
        if answer[:1] == [one] and other & set(rewritten) - set(answer):
            return f"negated: {one}"
    surplus = _negations(after) - _negations(before)
    if answer[:1] == rewritten[:1] == ["no"]:  # "No, it is not."
        surplus -= Counter([next((word for word in surplus if word == "not" or word.endswith("n't")), "")])
    negated = sorted(surplus - _negations(asked))
    if negated:
        return f"negated: {negated[0]}"
    if surplus:  # the question's own "not" must not come directly before the answer
        first = next((fact for fact in tokens(before) if fact not in FILLER), "")
        near = re.search(rf"(?:\bnot|n't|\bno|不是|没有)\s+(?:\w+\s+){{0,2}}{re.escape(first)}(?!\w)", after)
        if near:
            return f"negated: {near.group()}"
    hedged = HEDGES.search(after)
    if hedged and hedged.group().strip() not in {found.strip() for found in HEDGES.findall(before)}:
        return f"hedged: {hedged.group().strip()}"
    return None


def _negations(text: str) -> Counter[str]:
    text = re.sub(r"\bno\.\s*(?=\d)", "", text)  # invoice no. 7
    words = [word for word in re.findall(r"[a-z]+(?:'t)?", text) if word in NEGATIONS or word.endswith("n't")]
    return Counter([*words, *NEGATIONS_JOINED.findall(text)])


def _letter(letter: str, original: str, rewritten: str) -> str | None:
    """Check that the rewrite names the letter of the option and no other letter."""
    text = unicodedata.normalize("NFKC", rewritten)
    named = set(re.findall(r"(?<![\w'])([B-H])(?![\w'+#])", text))
    # "A" is also a word. It is an option in brackets, before a mark, after "option", or at the end.
    announced = r"(?i:\b(?:option|choice|letter)\s+|选项?\s*|答案[是为]?\s*)"
    if re.search(rf"\(A\)|\*A\b|{announced}\(?A\b|(?<![\w'])A(?:[):]|[.,](?:\s|$)|\s*$)", text):
        named.add("A")
    if letter not in named:
        return f"option missing: {letter}"
    others = sorted(named - {letter} - set(re.findall(r"\b[A-H]\b", original)))
    return f"another option: {others[0]}" if others else None


def _others(answer: str, there: Sequence[str], question: str) -> str | None:
    """Check that the rewrite names no option of the question other than the answer."""
    own, line = f" {' '.join(tokens(answer))} ", f" {' '.join(there)} "
    for option in options_of(question).values():
        words = f" {' '.join(tokens(option))} "
        if words.strip() and words not in own and words in line:
            return f"another option: {option}"
    return None
