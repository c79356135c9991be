"""Numbers of report.json as text, for the tables in Markdown and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def number(value: float | None, digits: int = 1, factor: float = 100.0) -> str:
    """Return `factor * value` with this many digits after the point, or "" if it was not measured."""
    return "" if value is None else f"{factor * value:.{digits}f}"


def with_interval(value: float | None, bounds: Sequence[float] | None, factor: float = 100.0) -> str:
    """Return `factor * value [low, high]`, without the interval if there is none, or "" without a value."""
    if value is None:
        return ""
    ends = f" [{number(bounds[0], factor=factor)}, {number(bounds[1], factor=factor)}]" if bounds else ""
    return number(value, factor=factor) + ends
