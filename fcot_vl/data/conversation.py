"""The conversation of somebody else's record, read into our messages or refused with a reason.

Between the files of `sources.py` and `Sample`: InternVL and LLaVA write `{"from": "human", "value": ...}` with an
`<image>` where a picture stands, chat data writes `{"role": "user", "content": ...}`. Ours puts all pictures before
the first question's text, so the marks go, after they were counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

IMAGE = "<image>"
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


class RecordError(ValueError):
    """A record that cannot be used.

    Args:
        kind: what it is counted under, such as `malformed conversation`.
        reason: what is wrong with this one.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def malformed(reason: str) -> RecordError:
    """The error of a record whose conversation is not one."""
    return RecordError("malformed conversation", reason)


def read_turns(turns: Any, pictures: int) -> list[dict[str, str]]:
    """A record's turns as `{"role", "content"}`, without picture marks.

    Args:
        turns: `{"from", "value"}` or `{"role", "content"}` in turn; a content may be a list of text and image parts.
        pictures: how many pictures the record has. The first question must mark each, with one exception: a record
            of one picture may leave the mark out, as InternVL's own reader allows.

    Raises:
        RecordError: an unknown role, turns that do not alternate from a question to an answer (a system turn may stand
            first), an empty turn, marks that are not as many as the pictures, or not in the first question.
    """
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise malformed("no turns")
    messages = [_turn(turn) for turn in turns]
    talk = messages[1:] if messages[0]["role"] == "system" else messages
    for at, message in enumerate(talk):
        expected = ("user", "assistant")[at % 2]
        if message["role"] != expected:
            raise malformed(f"turn {at + 1} is the {message['role']}'s, expected the {expected}'s")
    if not talk or len(talk) % 2:
        raise malformed("the last question has no answer")
    _take_marks(messages, talk[0], pictures)
    for message in messages:
        # A picture alone may be a question; nothing else may be empty.
        if not message["content"].strip() and not (message is talk[0] and pictures):
            raise malformed(f"an empty {message['role']} turn")
    return messages


def read_question(question: Any, answer: Any, pictures: int) -> list[dict[str, str]]:
    """A question and the first of its answers as messages; without an answer, the question alone.

    Raises RecordError for an empty question, an empty answer, or marks that are not as many as the pictures.
    """
    message = {"role": "user", "content": _text(question)}
    _take_marks([message], message, pictures)
    if not message["content"].strip():
        raise malformed("an empty question")
    if answer is None:
        return [message]
    if not _text(answer).strip():
        raise malformed("an empty answer")
    return [message, {"role": "assistant", "content": _text(answer)}]


def _turn(turn: Any) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise malformed(f"a turn is no object but {type(turn).__name__}")
    speaker = turn.get("from", turn.get("role"))
    if speaker not in ROLES:
        raise malformed(f"unknown role {speaker!r}, expected one of {', '.join(ROLES)}")
    content = turn.get("value", turn.get("content"))
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    return {"role": ROLES[speaker], "content": _text(content)}


def _part(part: Any) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image"}:
            return IMAGE + "\n"
    raise malformed(f"a content part that is neither text nor image: {str(part)[:60]}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise malformed(f"expected text, found {type(value).__name__}")
    return value


def _take_marks(messages: Sequence[dict[str, str]], first: dict[str, str], pictures: int) -> None:
    """Count the marks and take them out, with the line break that follows each."""
    marks = sum(message["content"].count(IMAGE) for message in messages)
    here = first["content"].count(IMAGE)
    if marks != here:
        raise malformed(f"an {IMAGE} outside of the first question")
    if here != pictures and not (here == 0 and pictures == 1):
        raise malformed(f"{here} {IMAGE} for {pictures} pictures")
    if here:
        first["content"] = first["content"].replace(IMAGE + "\n", "").replace(IMAGE, "").strip()
