"""The package prints in one place: `common/console.py`. Everything else logs, or gives its result to `show`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "fcot_vl"
HELPER = PACKAGE / "common" / "console.py"
ASKED = ("cli", "stages")  # the units that have results to show


def printing(source: str) -> list[str]:
    """Calls of `print`, and of what makes a console or echoes, with their lines."""
    names = ("print", "Console", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [f"line {call.lineno}: {name}" for call in calls if (name := ast.unparse(call.func)) in names]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_log_and_do_not_print(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if path != HELPER:
        assert not printing(source)
        shows = "import show" in source or "console.show" in source
        assert not shows or path.relative_to(PACKAGE).parts[0] in ASKED


@pytest.mark.parametrize("source", ["print('x')", "Console().print('x')", "def f():\n    typer.echo('x')"])
def test_the_rule_bites(source: str) -> None:
    assert printing(source)
