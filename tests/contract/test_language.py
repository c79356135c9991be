"""Help texts and docstrings begin with what the thing does or is, as docs in the field do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer.main

from fcot_vl.cli.app import app
from fcot_vl.cli.settings import own_settings
from fcot_vl.stages.post_train import PostTrainConfig
from fcot_vl.stages.realign import RealignConfig

PACKAGE = Path(__file__).resolve().parents[2] / "fcot_vl"
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
VAGUE = re.compile(r"(Of|Most|Least|What|Which|Whether|How|None:)\b")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_names_the_thing(command: str) -> None:
    found = COMMANDS[command]
    assert found.help and not VAGUE.match(found.help)
    for parameter in found.params:
        if not getattr(parameter, "hidden", False) and parameter.name != "help":
            said = getattr(parameter, "help", None)
            assert said, f"{command}: {parameter.name} has no help"
            assert not VAGUE.match(said), f"{command}: {parameter.name}: {said}"
            assert said.endswith("."), f"{command}: {parameter.name}: {said}"


@pytest.mark.parametrize("config", [RealignConfig, PostTrainConfig], ids=lambda c: c.__name__)
def test_help_of_a_setting_says_what_it_means(config: type) -> None:
    for setting in own_settings(config):
        said = setting.metadata.get("help")
        assert said, f"{setting.name} has no help"
        assert not VAGUE.match(said) and said.endswith("."), f"{setting.name}: {said}"
        if setting.default is None:
            assert "Default: " in said, f"{setting.name}: {said}"


def docstrings(path: Path) -> list[tuple[str, str]]:
    """(name, docstring) of the module, its classes and functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (getattr(node, "name", "module"), text)
        for node in ast.walk(tree)
        if isinstance(node, kinds) and (text := ast.get_docstring(node))
    ]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_docstrings_say_what_the_thing_does(path: Path) -> None:
    vague = [(name, text.splitlines()[0]) for name, text in docstrings(path) if VAGUE.match(text)]
    assert not vague
