"""Recipes: YAML files with one section per stage, read into the stages' own dataclasses and overridden by flags.

Used by the command line and the pipeline. A recipe may hold only what a stage's dataclass has; a wrong name or an
unreadable value is an error that says what is known.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml

from fcot_vl.message import one_line

C = TypeVar("C")


class RecipeError(ValueError):
    """A recipe or a flag cannot be used; the message names it and what is known instead."""


def find_recipe(name: str | Path) -> Path:
    """A recipe file by path, or one that ships with the package by name (`demo`, `reproduce`).

    Raises RecipeError when there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    here = Path(__file__).resolve().parent
    shipped = [here / "recipes", here.parent / "recipes"]  # in a wheel, in a checkout
    for folder in shipped:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted(p.stem for folder in shipped for p in folder.glob("*.yaml"))
    raise RecipeError(f"{name}: no such recipe file; give a path, or one of {', '.join(known)}")


def read_recipe(name: str | Path) -> dict[str, Any]:
    """The sections of a recipe, numbers like `1e-3` read as numbers. Raises RecipeError."""
    path = find_recipe(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read ({one_line(error)})") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: a recipe is a list of `section:` entries, this file is none")
    plain: dict[str, Any] = _numbers(content)
    return plain


def build(config: type[C], section: Mapping[str, Any] | None, flags: Sequence[str] = (), **fixed: Any) -> C:
    """Make a stage's dataclass from a recipe section, overridden by `flags`, overridden by `fixed`.

    `flags` are as typed: `--learning-rate 1e-3`, `--learning-rate=1e-3`, `--freeze-vision`, `--no-freeze-vision`,
    `--ratios 2,4`. Raises RecipeError for an unknown name, a missing one, or a value the dataclass refuses.
    """
    known = {f.name: f for f in fields(config) if f.init}  # type: ignore[arg-type]
    values = {_known(key, known, config.__name__): value for key, value in (section or {}).items()}
    values |= parse_flags(flags, known, config.__name__)
    values |= fixed
    hints = typing.get_type_hints(config)
    values = {key: _fit(value, hints.get(key)) for key, value in values.items()}
    missing = [
        f.name
        for f in known.values()
        if f.default is MISSING and f.default_factory is MISSING and f.name not in values
    ]
    if missing:
        raise RecipeError(f"missing --{missing[0].replace('_', '-')} (for {config.__name__})")
    try:
        return config(**values)
    except (TypeError, ValueError) as error:
        raise RecipeError(one_line(error)) from None


def parse_flags(flags: Sequence[str], known: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """`--name value` pairs as a dict, values read as YAML. Raises RecipeError for what is no known flag."""
    values: dict[str, Any] = {}
    waiting = list(flags)
    while waiting:
        flag = waiting.pop(0)
        if not flag.startswith("--"):
            raise RecipeError(f"{flag!r}: expected a flag such as --seed 1")
        name, given, text = flag[2:].partition("=")
        name = name.replace("-", "_")
        if not given and name.startswith("no_") and name not in known:
            values[_known(name[3:], known, owner)] = False
        elif given:
            values[_known(name, known, owner)] = _value(text)
        elif waiting and not waiting[0].startswith("--"):
            values[_known(name, known, owner)] = _value(waiting.pop(0))
        else:
            values[_known(name, known, owner)] = True
    return values


def _known(name: str, known: Mapping[str, Any], owner: str) -> str:
    plain = name.replace("-", "_")
    if plain in known:
        return plain
    near = difflib.get_close_matches(plain, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"see the fields of {owner}"
    raise RecipeError(f"unknown setting {name!r}; {hint}")


def _value(text: str) -> Any:
    try:
        return _numbers(yaml.safe_load(text))
    except yaml.YAMLError:
        return text


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads `1e-3` as text; here it is a number."""
    if isinstance(value, dict):
        return {str(k): _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    if isinstance(value, str) and value[:1] in "0123456789.+-":
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _fit(value: Any, hint: Any) -> Any:
    """`value` in the shape its field wants: a path, a whole number, a list where one element or "2,4" was typed."""
    options = set(typing.get_args(hint)) if typing.get_origin(hint) in (Union, types.UnionType) else {hint}
    if Path in options and isinstance(value, str):
        return Path(value)
    if int in options and float not in options and isinstance(value, float) and value.is_integer():
        return int(value)
    wants_list = any(typing.get_origin(option) is list for option in options)
    if wants_list and isinstance(value, str):
        return [_value(part) for part in value.split(",")]
    if wants_list and value is not None and not isinstance(value, list):
        return [value]
    return value
