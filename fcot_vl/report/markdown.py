"""Render report.md from the content of report.json, and from nothing else, by the template `report.md.jinja`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fcot_vl.report.formatting import number, with_interval
from fcot_vl.report.variant import DEFAULT_OPTIONS


def render(content: dict[str, Any]) -> str:
    """Return the text of report.md.

    Args:
        content: Content of report.json.
    """
    environment = Environment(
        loader=PackageLoader("fcot_vl.report"),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "with_interval": with_interval, "fenced": fenced}
    template = environment.get_template("report.md.jinja")
    return template.render(content, retention_of=_retention_lookup(content["models"]))


def fenced(text: str) -> str:
    """Return a text block in Markdown whose fence is longer than the fences in the text."""
    fence = "`" * (3 + text.count("```"))
    return f"{fence}text\n{text}\n{fence}"


def _retention_lookup(models: list[dict[str, Any]]) -> Callable[[dict[str, Any]], float | None]:
    """Return a function from a row of a bench file to the retention of its model, None if it was not evaluated.

    A bench times the teacher, with and without a baseline, and finished students.
    """

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        options = (row.get(name) or default for name, default in DEFAULT_OPTIONS.items())
        return row["compress_ratio"], row["method"], row["keep"], row["layer"], *options

    known = {
        key(row): row["retention"]
        for row in models
        if row["stage"] in ("teacher", "post-train") and not row["merged"]
    }
    return lambda row: known.get(key(row))
