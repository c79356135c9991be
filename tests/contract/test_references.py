"""Files and modules that docstrings and comments of the package mention exist."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fcot_vl"
FILES = [
    path.relative_to(ROOT).as_posix()
    for folder in ("fcot_vl", "tests", "tools", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
]
UNITS = {path.stem for path in PACKAGE.iterdir()} - {"__pycache__"}
FOREIGN = {"conversation.py"}  # files of other projects: InternVL's conversation templates
FILE = re.compile(r"[\w/.-]*\w\.py\b")
MODULE = re.compile(r"`(?:fcot_vl\.)?(\w+(?:\.\w+)*\.(?!(?:json|jsonl|png|md|yaml|jinja|html)`)\w+)`")
PAGE = re.compile(r"\bdocs/[\w/.-]+\.md\b")


def prose(source: str) -> Iterator[str]:
    """Yield the comments and docstrings of a module."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT or (
            token.type == tokenize.STRING and token.string.lstrip("r").startswith('"""')
        ):
            yield token.string


def is_module(name: str) -> bool:
    """Return True if a dotted name below `fcot_vl` is a module or package, or a name inside one."""
    parts = name.split(".")
    return any(
        (PACKAGE / "/".join(parts[:n])).with_suffix(".py").is_file()
        or (len(parts) == n and (PACKAGE / "/".join(parts)).is_dir())
        for n in range(1, len(parts) + 1)
    )


def stale(source: str) -> list[str]:
    """Return the mentioned files, modules and pages that do not exist."""
    found = []
    for text in prose(source):
        names = [name for name in FILE.findall(text) if name not in FOREIGN]
        found += [name for name in names if not any(f"/{file}".endswith(f"/{name}") for file in FILES)]
        modules = [name for name in MODULE.findall(text) if name.split(".")[0] in UNITS]
        found += [name for name in modules if not is_module(name)]
        found += [name for name in PAGE.findall(text) if not (ROOT / name).is_file()]
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_mentioned_files_exist(path: Path) -> None:
    assert stale(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('"""See `runner.py`."""', ["runner.py"]),
        ("# used by `evaluate/asking.py`", ["evaluate/asking.py"]),
        ('"""See `fcot_vl.prune.engine` and `data.resample`."""', ["prune.engine", "data.resample"]),
        (
            '"""See `docs/peers.md`, and `data/dataset.py`, `common.config.build`, `models.internvl`."""',
            ["docs/peers.md"],
        ),
    ],
)
def test_a_stale_name_is_found(source: str, names: list[str]) -> None:
    assert stale(source) == names
