"""Find the final answer of a response and the text around it that may retract it.

The last mark decides (`Answer:`, `the answer is`, `\\boxed{}`, `####`, `<answer>`, `答案`, `故选`). Without a mark, the
answer is the last non-empty line, or the bold text in it.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from fcot_vl.verify.text import clean, unwrap, without_emphasis

LONGEST = 10_000  # characters; of a longer response, only the end is read, where the answer is
_KIND = r"(?:(?:final|correct|right|best|overall|exact|short|direct)\s+){0,3}"
_HEAD = rf"(?<![A-Za-z]){_KIND}(?:answer|ans(?=\s*[:=.]))"
MARK = re.compile(
    rf"(?P<colon>{_HEAD}\s*(?:\([^()\n]{{0,40}}\))?\s*(?:is\s*|was\s*)?(?:[:=]|->|→|(?<=\s)-(?=\s))[:=>\s]*)"
    rf"|(?P<is>(?:{_HEAD}(?:\s+(?:to|for|of)\s[^.:\n]{{0,80}}?)?|(?<![A-Za-z]){_KIND}(?:(?<=correct\s)|(?<=right\s)|(?<=best\s))"
    rf"(?:option|choice))\s+(?:is|was|would\s+be|should\s+be|must\s+be|equals|=)(?!\w)\s*:?)"
    rf"|(?P<heading>(?:^|(?<=\n))[#*\s]*{_KIND}answer[*\s]*\n\s*)"
    r"|(?P<chinese>(?:答案|(?<![\w])答)\s*(?:应该是|应为|应是|是|为)?\s*[:：]\s*|答案\s*(?:应该是|应为|应是|是|为)\s*"
    r"|(?:故选|应选|所以选|因此选)\s*[:：]?\s*)"
    r"|(?P<hashes>(?:^|(?<=\n))\s*####\s*(?=\S))"
    r"|(?P<boxed>\\f?boxed\s*\{)"
    r"|(?P<tag><answer>)",
    re.IGNORECASE,
)
DOUBT = re.compile(
    r"\b(?:not|never|neither|nor|no\s+longer|without|wrong|incorrect(?:ly)?|false|mistaken(?:ly)?|mistake|error|"
    r"cannot|unable|impossible|unclear|unknown|unsure|uncertain|maybe|perhaps|possibly|probably|might|may|could|guess(?:es|ed)?|"
    r"guessing|if|unless|instead|rather|except|but|however|although|though|thought|initial(?:ly)?|first(?:ly)?|previous(?:ly)?|"
    r"old|former|another|alternative(?:ly)?|either|or|claims?|claimed|says?\s+that|assum(?:e|ed|ing)|suppos(?:e|ed|ing)|"
    r"expected|estimated?|unlikely|doubt|deny|denies|reject(?:ed|s)?|supposedly|opposite|contrary|reverse|refuse|decline|ignore|far\s+from|nowhere|hardly|barely|allegedly|hypothetical(?:ly)?|should\s+have)\b"
    r"|n't\b|不是|不对|不|没有|并非|或者|可能|也许|错",
    re.IGNORECASE,
)
RETRACTION = re.compile(
    r"\b(?:actually|wait|correction|sorry|oops|hmm|mistake|instead|scratch\s+that|was\s+wrong|is\s+wrong|let\s+me\s+re|re-?check|"
    r"re-?consider|however|alternatively|on\s+second\s+thought|not\s+sure|unsure|incorrect|no,|but|or)\b|\bno\b\s*,|"
    r"等等|不对|更正|错了|或者",
    re.IGNORECASE,
)
HEARSAY = re.compile(
    r"(?<!\bI )\b(?:say|says|said|think|thinks|believes?|argues?|told|suggests?|answered|replied)\b",
    re.IGNORECASE,
)
SENTENCE = re.compile(
    r"(?<=[.!?。！？])(?<!\b[A-Z]\.)(?<!\bSt\.)(?<!\b(?:Mr|Dr|No|vs)\.)(?<!\bMrs\.)(?:\s+|(?<=[。！？]))"
)
BOLD = re.compile(r"(?<![0-9A-Za-z)\]*])\*\*(?=\S)([^*\n]+?)\*\*")


MARKS = 20  # number of last marks that are read
LINE = 1_000  # maximum characters of a marked answer


@dataclass(frozen=True)
class Final:
    """Final answer of a response, with the context that decides if it counts.

    Attributes:
        text: The answer, unwrapped; empty if there is none.
        before: The clause before its mark.
        after: The text after it.
        earlier: Answers marked before it, oldest first, each with the text between it and the next mark.
        marked: True if a mark points to it.
    """

    text: str
    before: str = ""
    after: str = ""
    earlier: tuple[tuple[str, str], ...] = ()
    marked: bool = False


def sentences(text: str) -> list[str]:
    """Split a line into sentences. The points of numbers, initials and usual abbreviations do not end a sentence."""
    return [part for part in SENTENCE.split(text) if part.strip()]


def extract_answer(text: str) -> str:
    """Extract the final answer of a reasoned response, without its wrapping.

    The answer is the text after the last mark: up to the end of the line, of the sentence after `the answer is`, or up
    to the closing brace of `\\boxed{`. Without a mark, it is the bold text of the last line, or that line. Reasoning in
    `<think>` tags is not read. The result is empty if there is no answer. Extracting twice gives the same result.
    """
    for _ in range(20):
        found = find_final(text).text
        if found == text:
            break
        text = found
    return text


def find_final(text: str) -> Final:
    """Run one step of `extract_answer`, and return the answer with the text around it."""
    text = re.sub(r"\n\s*\n", "\n\n", re.sub(r"[ \t]+", " ", clean(text[-LONGEST:])))
    if "</think>" in text:
        text = text.rpartition("</think>")[2]
    elif "<think>" in text:
        return Final("")
    marks = [(mark, *_captured(text, mark)) for mark in list(MARK.finditer(text))[-MARKS:]]
    marks = [found for found in marks if found[1]]
    if marks:
        mark, answer, end = marks[-1]
        earlier = tuple(
            (one, text[its_end : following[0].start()])
            for (_, one, its_end), following in itertools.pairwise(marks)
            if one != answer and not _inside(its_end, following[0])
        )
        return Final(answer, _clause_before(text, mark.start()), text[end:], earlier, True)
    last = next((line for line in reversed(text.split("\n")) if unwrap(line)), None)
    if last is None:
        return Final(unwrap(text))
    bold = BOLD.findall(last)
    if len(bold) == 1 and unwrap(bold[0]) and not unwrap(bold[0]).endswith(":"):
        before, _, after = last.partition(f"**{bold[0]}**")
        return Final(unwrap(bold[0]), before, after, marked=True)
    return Final(unwrap(without_emphasis(last)))


def _inside(end: int, following: re.Match[str]) -> bool:
    return following.start() < end


def _captured(text: str, mark: re.Match[str]) -> tuple[str, int]:
    """Return the text that a mark points to, and the position where it ends."""
    if mark["boxed"]:
        depth, at = 1, mark.end()
        while at < len(text) and depth and at < mark.end() + LINE:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        return (unwrap(text[mark.end() : at - 1]), at) if depth == 0 else ("", at)
    if mark["tag"]:
        end = text.find("</answer>", mark.end())
        end = len(text) if end < 0 else end
        return unwrap(re.sub(r"\s+", " ", text[mark.end() : end])), min(len(text), end + 9)
    start = mark.end()
    opened = text[start : start + LINE]
    start += len(opened) - len(re.sub(r"^[*_\s]+(?=\S)", "", opened)) if re.match(r"[*_\s]+\S", opened) else 0
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    line = text[start : min(end, start + LINE)]
    if "\n" in text[mark.start() : start] and re.match(r"[-*•]\s+\S", line):
        following = re.match(r"(?:[-*•]\s+\S[^\n]*(?:\n\s*|$))+", text[start : start + LINE])
        items = re.findall(r"[-*•]\s+(\S[^\n]*)", following[0]) if following else []
        if following and len(items) > 1:
            return ", ".join(unwrap(without_emphasis(item)) for item in items), start + following.end()
    if mark["is"]:
        line = (sentences(line) or [""])[0]
    return unwrap(without_emphasis(_unpaired(line))), start + len(line)


def _unpaired(line: str) -> str:
    """Remove from a line the closing stars of an emphasis that began before it."""
    return line.replace("**", "", 1) if line.count("**") % 2 and not re.search(r"\d\*\*\d", line) else line


def _clause_before(text: str, start: int) -> str:
    """Return the words of the same clause before a mark."""
    before = text[max(0, start - 200) : start]
    return re.split(r"[.!?;。！？；\n]|,\s*(?:so|thus|therefore|hence|and)\b|，(?:所以|因此)", before)[-1]
