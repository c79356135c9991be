"""Text that can be written to any file: lone surrogates are found where text enters, and replaced where it is made.

JSON escapes such as `"\\ud83d"` and bytes that are not UTF-8 become lone surrogates in Python. No encoder of UTF-8 and
no Parquet file takes them.
"""

from __future__ import annotations

import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def has_surrogates(text: str) -> bool:
    """Return True if a text has a lone surrogate, so that it cannot be encoded."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def clean_text(text: str) -> str:
    """Return the text with each lone surrogate replaced by `?`. Two that form a character become that character."""
    if not has_surrogates(text):
        return text
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return joined.encode("utf-8", "replace").decode("utf-8")


def check_text(text: str, what: str) -> str:
    """Return the text.

    Args:
        what: Name of the text in the error, such as `the question`.

    Raises:
        ValueError: If it has a lone surrogate.
    """
    if not has_surrogates(text):
        return text
    found = _SURROGATE.search(text)
    assert found is not None
    raise ValueError(
        f"{what} is not valid Unicode: character {found.start() + 1} is half of a character ({found[0]!r}); "
        "write it again as UTF-8"
    )
