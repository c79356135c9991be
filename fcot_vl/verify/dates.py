"""Dates and times of day, parsed only if they have a single reading."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass

MONTHS = {
    name: month
    for month in range(1, 13)
    for name in (calendar.month_name[month].casefold(), calendar.month_abbr[month].casefold())
} | {"sept": 9}
MONTH = rf"(?P<month>{'|'.join(sorted(MONTHS, key=len, reverse=True))})\.?"
DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
YEAR = r"(?P<year>\d{4})"
WEEKDAYS = "|".join(
    sorted(
        [*(day.casefold() for day in calendar.day_name), *(day.casefold() for day in calendar.day_abbr)],
        key=len,
    )[::-1]
)
WEEKDAY = re.compile(rf"^(?P<weekday>{WEEKDAYS})\b\.?,?\s*")
NAMED = [
    re.compile(pattern)
    for pattern in (
        rf"{MONTH}\s*{DAY}(?:\s*,\s*|\s+){YEAR}",
        rf"(?:the\s+)?{DAY}\s*(?:of\s+)?[-\s]?{MONTH}[-,\s]*{YEAR}",
        rf"(?P<year>\d{{4}})[-,\s]+{MONTH}[-,\s]+{DAY}",
        rf"{MONTH}[-,\s]+{YEAR}",
        rf"{MONTH}\s*(?:the\s+)?{DAY}",
        rf"(?:the\s+)?{DAY}\s*(?:of\s+)?[-\s]?{MONTH}",
        r"(?P<year>\d{4})\s*年\s*(?P<number>\d{1,2})\s*月(?:\s*(?P<day>\d{1,2})\s*[日号])?",
        r"(?P<number>\d{1,2})\s*月\s*(?P<day>\d{1,2})\s*[日号]",
        r"(?P<year>\d{4})([-/.])(?P<number>\d{1,2})\2(?P<day>\d{1,2})",
    )
]
NUMERIC = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})")
TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*(?:([ap])\.?\s?m\.?)?")


@dataclass(frozen=True)
class Date:
    """Date, or the written part of one. `order` keeps the two numbers if day and month cannot be distinguished."""

    year: int | None
    month: int | None
    day: int | None
    short_year: bool = False
    order: tuple[int, int] | None = None


def read_date(text: str) -> Date | None:
    """Parse a cleaned string as a date.

    Examples are `2024-03-05`, `5th of March, 2024`, `March 2024` and `2024年3月5日`. Return None if the string is not a
    date.
    """
    text = re.sub(r"\s+", " ", text.casefold()).strip()
    if len(text) > 60:
        return None
    weekday = WEEKDAY.match(text)
    if weekday:
        text = text[weekday.end() :]
    if found := NUMERIC.fullmatch(text):
        return _numeric(int(found[1]), int(found[3]), found[4])
    for pattern in NAMED:
        if found := pattern.fullmatch(text):
            parts = found.groupdict()
            month = MONTHS[parts["month"]] if parts.get("month") else int(parts["number"])
            year = int(parts["year"]) if parts.get("year") else None
            day = int(parts["day"]) if parts.get("day") else None
            date = Date(year, month, day)
            if not _exists(date) or (weekday and not _falls_on(date, weekday["weekday"])):
                return None
            return date
    return None


def _numeric(first: int, second: int, written: str) -> Date | None:
    year, short = int(written), len(written) == 2
    if first > 12 >= second:
        date = Date(year, second, first, short)
    elif second > 12 >= first or first == second:
        date = Date(year, first, second, short)
    elif first <= 12 and second <= 12:
        return Date(year, None, None, short, (first, second))
    else:
        return None
    return date if _exists(date) else None


def _exists(date: Date) -> bool:
    if date.month is None or not 1 <= date.month <= 12:
        return False
    if date.day is None:
        return True
    year = date.year if date.year and not date.short_year else 2000
    return 1 <= date.day <= calendar.monthrange(max(year, 1), date.month)[1]


def _falls_on(date: Date, weekday: str) -> bool:
    if date.year is None or date.day is None or date.month is None or date.short_year:
        return True
    return calendar.day_name[calendar.weekday(date.year, date.month, date.day)].casefold()[:3] == weekday[:3]


def same_date(a: Date, b: Date) -> bool:
    """Return True if two dates are the same day, month or year. A part that only one of them has makes them different.

    `05/03/2024` may be in March or May, so it equals only the same digits in the same order.
    """
    if (a.order is None) != (b.order is None) or a.order != b.order:
        return False
    if (a.month, a.day) != (b.month, b.day):
        return False
    if a.short_year != b.short_year and a.year is not None and b.year is not None:
        return a.year % 100 == b.year % 100
    return a.year == b.year


def read_time(text: str) -> tuple[int, int, int] | None:
    """Parse a cleaned string as a time of day in hours (24), minutes and seconds: `3:45 PM`, `15:45`, `3 pm`."""
    found = TIME.fullmatch(text.casefold().strip())
    if found is None or (found[2] is None and found[4] is None):
        return None
    hour, minute, second = int(found[1]), int(found[2] or 0), int(found[3] or 0)
    if found[4]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found[4] == "p" else 0)
    return (hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None
