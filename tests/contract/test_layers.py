"""Imports go down only: read from the source, imports inside functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "fcot_vl"
LAYERS = [  # lowest first; rooms of one layer do not know each other
    {"message", "progress", "version", "figure"},
    {"stage"},
    {"model", "data", "prune", "merge"},
    {"shown"},
    {"convert", "train", "evaluate", "instruct", "bench", "ask", "export", "recipe"},
    {"inspect", "curves", "merge_stage", "visualize"},
    {"pipeline"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def room_of(path: Path) -> str:
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


def problems(room: str, source: str) -> list[str]:
    found = []
    for line, name in imports(source):
        parts = name.split(".")
        target = parts[1] if len(parts) > 1 else ""
        if target == room:
            continue
        if target not in LEVEL or LEVEL[target] >= LEVEL[room]:
            found.append(f"line {line}: {room} imports {name}")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if path == PACKAGE / "__init__.py":
        assert {name.split(".")[1] for _, name in imports(source)} <= {"model", "version"}
        return
    assert room_of(path) in LEVEL, f"{room_of(path)} has no layer: add it to LAYERS"
    assert problems(room_of(path), source) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("model", "from fcot_vl.data.sample import Sample"),
        ("model", "def f():\n    import fcot_vl.train.losses"),
        ("train", "from fcot_vl import evaluate"),
        ("stage", "from fcot_vl.model import x"),
        ("train", "from fcot_vl.cli import app"),
        ("data", "import fcot_vl"),
    ],
)
def test_the_rule_bites(room: str, source: str) -> None:
    assert problems(room, source)


def test_the_bottom_needs_nothing_above() -> None:
    for name in LAYERS[0]:
        assert not list(imports((PACKAGE / f"{name}.py").read_text()))
