"""Reasons for which a test may be skipped. A skip for any other reason fails the run."""

from __future__ import annotations

import re

EXPECTED_SKIPS = (
    r"lmms-eval lives in an environment of its own",
    r"could not import 'deepspeed'",
    r"no font for (printed|handwritten) (Latin|Chinese) text on this system",
    r"web pages need a font that the system knows",
    r"weasyprint needs pango",
    r"needs a GPU",
)


def is_expected(reason: str) -> bool:
    """Check whether a skip for this reason is allowed."""
    return any(re.match(expected, reason) for expected in EXPECTED_SKIPS)
