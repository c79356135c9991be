"""Recipes: YAML files with one section per stage, read into the dataclasses of the stages and overridden by flags.

The command line and the pipeline use this module. A recipe may contain only fields of a stage's dataclass. A wrong name
or an unreadable value raises an error that lists the known names or suggests one.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml

from fcot_vl.common.errors import one_line

C = TypeVar("C")


class RecipeError(ValueError):
    """Error for a recipe or a flag that cannot be used; the message names it and suggests alternatives."""


def find_recipe(name: str | Path) -> Path:
    """Find a recipe file by path, or by name if it ships with the package (`demo`, `reproduce`, `scale/realign`).

    Raises:
        RecipeError: If there is no such recipe.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = Path(__file__).resolve().parents[1] / "recipes"
    if (shipped / f"{name}.yaml").is_file():
        return shipped / f"{name}.yaml"
    known = sorted(p.relative_to(shipped).with_suffix("").as_posix() for p in shipped.rglob("*.yaml"))
    raise RecipeError(f"{name}: no such recipe file; give a path, or choose from {', '.join(known)}")


def read_recipe(name: str | Path) -> dict[str, Any]:
    """Read the sections of a recipe, with numbers like `1e-3` as numbers.

    Raises:
        RecipeError: If the recipe does not exist or cannot be read.
    """
    path = find_recipe(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read ({one_line(error)})") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: not a recipe; a recipe is a mapping of `section:` entries")
    plain: dict[str, Any] = _numbers(content)
    return plain


def build(config: type[C], section: Mapping[str, Any] | None, flags: Sequence[str] = (), **fixed: Any) -> C:
    """Build the dataclass of a stage from a recipe section.

    Args:
        flags: Command-line flags that override the section, as typed: `--learning-rate 1e-3`, `--learning-rate=1e-3`,
            `--freeze-vision`, `--no-freeze-vision`, `--ratios 2,4`.
        fixed: Values that override both.

    Raises:
        RecipeError: If a name is unknown or missing, or the dataclass rejects a value.
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
        raise RecipeError(
            f"missing --{missing[0].replace('_', '-')}; see `fcot-vl {_command(config.__name__)} --help`"
        )
    try:
        return config(**values)
    except (TypeError, ValueError) as error:
        raise RecipeError(one_line(error)) from None


def parse_flags(flags: Sequence[str], known: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Parse `--name value` pairs as a dict, with values read as YAML.

    Raises:
        RecipeError: If an argument is not a known flag.
    """
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


def _command(config_name: str) -> str:
    """Return the command of a dataclass: `PostTrainConfig` belongs to `post-train`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", config_name.removesuffix("Config")).lower()


def _known(name: str, known: Mapping[str, Any], owner: str) -> str:
    plain = name.replace("-", "_")
    if plain in known:
        return plain
    near = difflib.get_close_matches(plain, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"see `fcot-vl {_command(owner)} --help` for all settings"
    raise RecipeError(f"unknown setting {name!r}; {hint}")


def _value(text: str) -> Any:
    try:
        return _numbers(yaml.safe_load(text))
    except yaml.YAMLError:
        return text


def _numbers(value: Any) -> Any:
    """Convert text such as `1e-3`, which YAML 1.1 reads as a string, to numbers."""
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
    """Convert `value` to the type of its field: a path, an integer, or a list if one element or "2,4" was typed."""
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
