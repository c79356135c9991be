"""Commands that run a whole recipe: demo, reproduce."""

from __future__ import annotations

import typer

from fcot_vl.cli.options import Jobs, RunOutput, RunRecipe

app = typer.Typer()


@app.command()
def demo(output: RunOutput = None, jobs: Jobs = None, recipe: RunRecipe = "demo") -> None:
    """Run all stages in minutes: two students (ratios 2 and 4), all comparisons, one seed, a report."""
    from fcot_vl.pipeline import run_recipe

    run_recipe(recipe, output=output, jobs=jobs)


@app.command()
def reproduce(output: RunOutput = None, jobs: Jobs = None, recipe: RunRecipe = "reproduce") -> None:
    """Run all stages in hours: three seeds, all baselines and controls, full training, a report."""
    from fcot_vl.pipeline import run_recipe

    run_recipe(recipe, output=output, jobs=jobs)
