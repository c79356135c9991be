"""Training-free baselines of a recipe: which methods are evaluated, and at which shares of the visual tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fcot_vl.common.config import build
from fcot_vl.common.errors import one_line
from fcot_vl.models.auto import read_config
from fcot_vl.pipeline.recipe import BaselinesSection, Recipe
from fcot_vl.prune.method import Method


@dataclass(frozen=True)
class Baseline:
    """One evaluation of a training-free baseline on the teacher."""

    name: str
    """Name of the evaluation and of its folder."""
    method: Method
    seed: int
    """Seed that the evaluation is recorded under."""


def list_baselines(recipe: Recipe) -> tuple[list[Baseline], list[str]]:
    """Return every training-free baseline, and the reasons why others were left out.

    Each method is used at each nominal share, and again where its mean share over the decoder's layers has that value.
    Random dropping runs once per seed, every other method once.
    """
    section = build(BaselinesSection, recipe.baselines)
    depth = read_config(recipe.teacher_model).text_config.num_hidden_layers
    found: dict[Method, str] = {}
    left_out = []
    for name in section.methods:
        for keep in section.keep:
            for layer in section.layers if name == "fastv" else [None]:
                nominal = Method(name, keep, layer)
                for equal in (False, True) if section.equal_layer_mean else (False,):
                    try:
                        method = nominal.at_layer_mean(keep, depth) if equal else nominal
                        method.drops(depth)
                    except ValueError as error:
                        left_out.append(f"{nominal}: {one_line(error)}")
                        continue
                    at = f"-k{layer}" if layer else ""
                    found.setdefault(method, f"{name}{at}-{100 * (method.keep or 0):.3g}")
    baselines = []
    for method, name in found.items():
        if method.name == "random":
            baselines += [
                Baseline(name=f"{name}-seed-{seed}", method=replace(method, seed=seed), seed=seed)
                for seed in recipe.seeds
            ]
        else:
            baselines.append(Baseline(name=name, method=method, seed=recipe.seeds[0]))
    return baselines, list(dict.fromkeys(left_out))
