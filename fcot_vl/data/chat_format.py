"""Read conversations from other formats into messages, or refuse them with a reason.

This module sits between the sources (`sources/`) and `Sample`. InternVL and LLaVA write
`{"from": "human", "value": ...}` with an `<image>` at the position of each image. Chat data uses
`{"role": "user", "content": ...}`. Our messages keep the marks where they are. Images without marks are before the text
of the first question.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fcot_vl.common.text import check_text, clean_text

IMAGE = "<image>"
_LEADING = re.compile(rf"(?:\s*{IMAGE})+")
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
        super().__init__(clean_text(reason))
        self.kind = kind


def malformed(reason: str) -> SampleError:
    """Return the error for a malformed conversation."""
    return SampleError("malformed conversation", reason)


def read_turns(turns: Any, n_images: int) -> list[dict[str, str]]:
    """Read the turns of a sample as `{"role", "content"}` messages.

    Marks keep their place in the text. If all of them are at the start of the first question, they are removed, because
    images without a mark are put there.

    Args:
        turns: Turns `{"from", "value"}` or `{"role", "content"}` in order. A content may be a list of text and image
            parts.
        n_images: Number of images of the sample. The questions must mark each of them, or none, as InternVL's own
            reader allows.

    Raises:
        SampleError: If a role is unknown, if the turns do not alternate between questions and answers (the first turn
            may be a system turn), if a turn is empty, if a text is not valid Unicode, if the number of marks differs
            from the number of images, or if a mark is outside of a question.
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
    _check_marks(messages, n_images)
    for message in messages:
        # The first question may be only an image. No other turn may be empty.
        if not message["content"].strip() and not (message is talk[0] and n_images):
            raise malformed(f"an empty {message['role']} turn")
    return messages


def read_question(question: Any, answer: Any, n_images: int) -> list[dict[str, str]]:
    """Return a question and its first answer as messages; without an answer, return only the question.

    Raises:
        SampleError: If the question or the answer is empty or not valid Unicode, or if the number of marks differs from
            the number of images.
    """
    message = {"role": "user", "content": _text(question)}
    _check_marks([message], n_images)
    if not message["content"].strip():
        raise malformed("an empty question")
    if answer is None:
        return [message]
    return [message, {"role": "assistant", "content": read_answer(answer)}]


def read_answer(value: Any) -> str:
    """Return an answer as text. A number is written out.

    Raises:
        SampleError: If it is neither text nor a number, or empty, or not valid Unicode.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    if not _text(value).strip():
        raise malformed("an empty answer")
    return str(value)


def count_marks(messages: Sequence[Mapping[str, str]]) -> int:
    """Count the image marks in the questions of a conversation."""
    return sum(message["content"].count(IMAGE) for message in messages if message["role"] == "user")


def images_so_far(messages: Sequence[Mapping[str, str]], whole: Sequence[Mapping[str, str]]) -> int | None:
    """Return how many images the first messages of a conversation show, or None if they show all.

    Args:
        messages: The first messages of the conversation.
        whole: The whole conversation. Without any mark in it, the first question shows all images.
    """
    return count_marks(messages) if count_marks(whole) else None


def with_image_parts(messages: Sequence[Mapping[str, str]], n_images: int) -> list[dict[str, Any]]:
    """Return the messages with their contents as text and image parts.

    An image part is at each mark of a question or, without any mark, before the text of the first question.

    Raises:
        ValueError: If there is no question, or if the number of marks differs from the number of images.
    """
    first = next((at for at, message in enumerate(messages) if message["role"] == "user"), None)
    if first is None:
        raise ValueError(
            f"a conversation needs a user and an assistant turn, got {[m['role'] for m in messages]}"
        )
    marks = count_marks(messages)
    if marks and marks != n_images:
        raise malformed(f"{marks} {IMAGE} for {n_images} images")
    found: list[dict[str, Any]] = []
    for at, message in enumerate(messages):
        pieces = message["content"].split(IMAGE) if message["role"] == "user" else [message["content"]]
        parts: list[dict[str, Any]] = [{"type": "text", "text": pieces[0]}] if pieces[0] or not marks else []
        for piece in pieces[1:]:
            parts += [{"type": "image"}, *([{"type": "text", "text": piece}] if piece else [])]
        if at == first and not marks:
            parts = [*({"type": "image"} for _ in range(n_images)), *parts]
        found.append({**message, "content": parts})
    return found


def _turn(turn: Any) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise malformed(f"a turn must be an object, got {type(turn).__name__}")
    speaker = turn.get("from", turn.get("role"))
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise malformed(f"unknown role {speaker!r}, expected one of {', '.join(ROLES)}")
    content = turn.get("value", turn.get("content"))
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    return {"role": ROLES[speaker], "content": _text(content)}


def images_of_parts(turns: Any) -> list[Any]:
    """Return the images that the image parts of the turns name, in order: paths, or whatever is there instead."""
    found = []
    for turn in turns if isinstance(turns, list) else ():
        content = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") in ("image", "image_url"):
                named = next(
                    (part[key] for key in ("image", "image_url", "path", "url") if part.get(key)), None
                )
                found += [] if named is None else [named]
    return found


def _part(part: Any) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image" | "image_url"}:
            return IMAGE + "\n"
    raise malformed(f"a content part that is neither text nor image: {part!r:.60}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise malformed(f"expected text, found {'nothing' if value is None else type(value).__name__}")
    try:
        return check_text(value, "a text")
    except ValueError as error:
        raise malformed(str(error)) from None


def _check_marks(messages: Sequence[dict[str, str]], n_images: int) -> None:
    """Check the number of image marks, and remove those at the start of the first question if there are no others."""
    marks = count_marks(messages)
    if sum(message["content"].count(IMAGE) for message in messages) != marks:
        raise malformed(f"an {IMAGE} outside of a question")
    if marks not in (0, n_images):
        raise malformed(f"{marks} {IMAGE} for {n_images} images")
    first = next(message for message in messages if message["role"] == "user")
    leading = _LEADING.match(first["content"])
    if leading is not None and leading[0].count(IMAGE) == marks:
        first["content"] = first["content"][leading.end() :].strip()
