"""Settings of the training commands: the fields of a dataclass, read from a recipe and flags."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import TypeVar

C = TypeVar("C")
MORE_FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True}


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
