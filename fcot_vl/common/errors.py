"""Errors of several units, and error texts in one line as part of a message to the user."""

from __future__ import annotations

from fcot_vl.common.text import clean_text


class CheckpointError(ValueError):
    """Error for a checkpoint that cannot be used or written; the message names the file, the problem and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(clean_text(message))  # it may quote the name of a weight or a file


def one_line(error: BaseException, most: int = 200) -> str:
    """Return the error's text without line breaks, cut after `most` characters, or its type if it has no text."""
    return clean_text(" ".join(str(error).split()))[:most] or type(error).__name__
