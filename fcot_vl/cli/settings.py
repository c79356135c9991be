"""Settings of the training commands: the fields of a dataclass, read from flags and listed by `--help`.

A field has its meaning and unit in its `help` metadata, and nowhere else. Typer passes the flags of these commands on
unread (`MORE_FLAGS`), because they also include the hundred fields of transformers' `TrainingArguments`.
"""

from __future__ import annotations

import inspect
import types
import typing
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar

from typer.core import TyperCommand

C = TypeVar("C")
MORE_FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True}


class SettingsCommand(TyperCommand):
    """Base class of commands whose further flags are the fields of a dataclass.

    The help of such a command ends with a list of the settings. The dataclass is imported only to write this list.
    """

    section: str
    """Section of a recipe that holds the same settings."""

    def config(self) -> type[Any]:
        """Import and return the dataclass."""
        raise NotImplementedError

    @property
    def epilog(self) -> str:
        """Text below the options, in Markdown."""
        return (
            f"**Settings**, as flags or in the section `{self.section}` of a recipe. Those of transformers' "
            f"`TrainingArguments` work too, such as `--max-steps 500 --bf16`.\n\n{list_settings(self.config())}"
        )

    @epilog.setter
    def epilog(self, text: str | None) -> None:
        """Ignore the text that typer passes to every command."""


def read_settings(
    config: type[C], section: str, recipe: str | None, flags: typing.Sequence[str], output: Path
) -> C:
    """Build the dataclass of a training stage from the section of a recipe, if one is given, and flags.

    Raises:
        RecipeError: If the recipe, a name or a value cannot be used.
    """
    from fcot_vl.common.config import build, read_recipe

    values = read_recipe(recipe).get(section, {}) if recipe else {}
    return build(config, values, flags, output_dir=str(output))


def list_settings(config: type[Any]) -> str:
    """List the settings that our dataclasses declare, in Markdown: flag, type, meaning, default."""
    hints = typing.get_type_hints(config)
    return "\n".join(_line(setting, hints[setting.name]) for setting in own_settings(config))


def own_settings(config: type[Any]) -> list[Field[Any]]:
    """Return the fields that classes of this package declare, the class itself first, then its bases.

    Fields inherited from transformers are left out, unless their default is declared anew.
    """
    known = {setting.name: setting for setting in fields(config)}
    ours = [kind for kind in config.__mro__ if kind.__module__.partition(".")[0] == "fcot_vl"]
    names = dict.fromkeys(name for kind in ours for name in inspect.get_annotations(kind) if name in known)
    return [known[name] for name in names]


def _line(setting: Field[Any], hint: Any) -> str:
    flag = setting.name.replace("_", "-")
    default = setting.default  # MISSING if it depends on the machine; the help text then says how
    if typing.get_origin(hint) is list and setting.default_factory is not MISSING:
        default = ",".join(map(str, setting.default_factory()))
    if hint is bool:
        shown = f"--{flag} / --no-{flag}"
        default = default if default is MISSING else flag if default else f"no-{flag}"
    else:
        shown = f"--{flag} <{_type_name(hint, default)}>"
    end = "" if default is MISSING or default is None else f"  [default: {default}]"
    return f"* `{shown}`: {setting.metadata['help']}{end}"


def _type_name(hint: Any, default: Any) -> str:
    """Return the name of a field's type, such as `int`, or `int,...` for a list; that of the default for Any."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = set(typing.get_args(hint)) - {types.NoneType}
    if typing.get_origin(hint) is list:
        return f"{typing.get_args(hint)[0].__name__},..."
    return str(type(default).__name__ if hint is Any else hint.__name__)
