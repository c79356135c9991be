"""What an error says, in one line, as part of a message to a person."""

from __future__ import annotations


def one_line(error: BaseException, most: int = 200) -> str:
    """The error's text without line breaks, cut after `most` characters; its kind where it has no text."""
    return " ".join(str(error).split())[:most] or type(error).__name__
