"""Imports go down only: read from the source, imports inside functions included."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from fcot_vl.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fcot_vl"
LAYERS = [  # lowest first; units of one layer do not import each other
    {"version", "prune", "verify"},
    {"common"},
    {"models", "data", "merge", "convert"},
    {"synthesize", "train", "inference"},
    {"instruct", "evaluate", "bench"},
    {"report"},
    {"stages"},
    {"pipeline"},
    {"cli"},
    {"__main__"},
]
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}


def unit_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported from this package."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            module = node.module or ""
            names = [f"fcot_vl.{a.name}" for a in node.names] if module == "fcot_vl" else [module]
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "fcot_vl")


def problems(unit: str, source: str) -> list[str]:
    found = []
    for line, name in imports(source):
        parts = name.split(".")
        target = parts[1] if len(parts) > 1 else ""
        if target == unit:
            continue
        if target not in LEVEL or LEVEL[target] >= LEVEL[unit]:
            found.append(f"line {line}: {unit} imports {name}")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if path == PACKAGE / "__init__.py":
        assert {name.split(".")[1] for _, name in imports(source)} <= {"models", "version"}
        return
    assert unit_of(path) in LEVEL, f"{unit_of(path)} has no layer: add it to LAYERS"
    assert problems(unit_of(path), source) == []


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("models", "from fcot_vl.data.dataset import Sample"),
        ("models", "def f():\n    import fcot_vl.train.losses"),
        ("train", "from fcot_vl import evaluate"),
        ("common", "from fcot_vl.models import x"),
        ("train", "from fcot_vl.cli.app import app"),
        ("data", "import fcot_vl"),
    ],
)
def test_the_rule_bites(unit: str, source: str) -> None:
    assert problems(unit, source)


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda p: p.name)
def test_the_command_line_imports_the_rest_when_a_command_runs(path: Path) -> None:
    """Imports outside functions would slow down every start."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            top = name.split(".")[0]
            light = top in sys.stdlib_module_names or top in ("typer", "rich")
            assert light or name.startswith("fcot_vl.cli"), f"line {node.lineno}: {name}"


def test_the_bottom_imports_nothing_above() -> None:
    for path in PACKAGE.rglob("*.py"):
        if unit_of(path) in LAYERS[0]:
            assert {name.split(".")[1] for _, name in imports(path.read_text())} <= {unit_of(path)}


def test_every_command_is_a_file_of_stages() -> None:
    commands = {name.replace("-", "_") for name in typer.main.get_command(app).commands}  # type: ignore[attr-defined]
    files = {path.stem for path in (PACKAGE / "stages").glob("[a-z]*.py")}
    # A file `inspect.py` would hide Python's own module from anyone who runs a file of that folder.
    assert {name.removesuffix("_checkpoint") for name in files} == commands - {"demo", "reproduce"}


def test_no_file_hides_a_module_of_python() -> None:
    names = {path: path.stem for path in ROOT.glob("[a-z]*/**/*.py") if path.stem != "__main__"}
    folders = {path.parent: path.parent.name for path in names}
    assert [str(path) for path, name in (names | folders).items() if name in sys.stdlib_module_names] == []
