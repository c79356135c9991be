"""Read conversations from other formats into messages, or refuse them with a reason.

This module sits between the sources (`sources/`) and `Sample`. InternVL and LLaVA write
`{"from": "human", "value": ...}` with an `<image>` at the position of each image. Chat data uses
`{"role": "user", "content": ...}`. Our format puts all images before the text of the first question, so the marks are
counted and then removed.
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


class SampleError(ValueError):
    """Sample that cannot be used.

    Args:
        kind: Category it is counted under, such as `malformed conversation`.
        reason: Reason why this sample cannot be used.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def malformed(reason: str) -> SampleError:
    """Return the error for a malformed conversation."""
    return SampleError("malformed conversation", reason)


def read_turns(turns: Any, n_images: int) -> list[dict[str, str]]:
    """Read the turns of a sample as `{"role", "content"}` messages, without image marks.

    Args:
        turns: Turns `{"from", "value"}` or `{"role", "content"}` in order. A content may be a list of text and image
            parts.
        n_images: Number of images of the sample. The first question must mark each of them, with one exception: a
            sample with one image may omit the mark, as InternVL's own reader allows.

    Raises:
        SampleError: If a role is unknown, if the turns do not alternate between questions and answers (the first turn
            may be a system turn), if a turn is empty, if the number of marks differs from the number of images, or if a
            mark is not in the first question.
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
    _take_marks(messages, talk[0], n_images)
    for message in messages:
        # The first question may be only an image. No other turn may be empty.
        if not message["content"].strip() and not (message is talk[0] and n_images):
            raise malformed(f"an empty {message['role']} turn")
    return messages


def read_question(question: Any, answer: Any, n_images: int) -> list[dict[str, str]]:
    """Return a question and its first answer as messages; without an answer, return only the question.

    Raises:
        SampleError: If the question or the answer is empty, or if the number of marks differs from the number of
            images.
    """
    message = {"role": "user", "content": _text(question)}
    _take_marks([message], message, n_images)
    if not message["content"].strip():
        raise malformed("an empty question")
    if answer is None:
        return [message]
    if not _text(answer).strip():
        raise malformed("an empty answer")
    return [message, {"role": "assistant", "content": _text(answer)}]


def _turn(turn: Any) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise malformed(f"a turn must be an object, got {type(turn).__name__}")
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


def _take_marks(messages: Sequence[dict[str, str]], first: dict[str, str], n_images: int) -> None:
    """Check the number of image marks and remove them, with the line break that follows each."""
    marks = sum(message["content"].count(IMAGE) for message in messages)
    here = first["content"].count(IMAGE)
    if marks != here:
        raise malformed(f"{IMAGE} outside of the first question")
    if here != n_images and not (here == 0 and n_images == 1):
        raise malformed(f"{here} {IMAGE} for {n_images} images")
    if here:
        first["content"] = first["content"].replace(IMAGE + "\n", "").replace(IMAGE, "").strip()
