"""A recipe from its file to the report."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from fcot_vl.common.config import find_recipe
from fcot_vl.common.stage import lock_folder
from fcot_vl.pipeline.baselines import list_baselines
from fcot_vl.pipeline.plan import plan
from fcot_vl.pipeline.recipe import load_recipe
from fcot_vl.pipeline.scheduler import format_duration, run_here, run_in_processes
from fcot_vl.stages.report import ReportConfig, report

logger = logging.getLogger(__name__)


def run_recipe(name: str | Path, **overrides: Any) -> Path:
    """Run a recipe through all stages and return the report's folder.

    Args:
        name: Recipe, by path or by name.
        overrides: Values that replace top-level values of the recipe (`output`, `seeds`, `jobs`, ...).

    Raises:
        RecipeError: If the recipe cannot be used.
        PipelineError: If a step failed.
    """
    recipe = load_recipe(name, **overrides)
    steps = plan(recipe)
    for reason in list_baselines(recipe)[1]:
        logger.info(f"left out: {reason}")
    folder = Path(recipe.output)
    title = find_recipe(name).stem
    logger.info(
        f"{title}: {len(steps)} steps into {folder} (seeds {', '.join(map(str, recipe.seeds))}; "
        f"{recipe.jobs} at a time, {recipe.threads} thread{'s' if recipe.threads > 1 else ''} each). "
        "The students are trained in this run; none is pre-trained. "
        "You can interrupt at any time. Rerun the same command to resume."
    )
    started = time.monotonic()
    with lock_folder(folder):
        if recipe.jobs == 1:
            run_here(steps, threads=recipe.threads)
        else:
            run_in_processes(steps, jobs=recipe.jobs, threads=recipe.threads, logs=folder / "logs")
        output = report(ReportConfig(folder))
    logger.info(f"{title}: {format_duration(time.monotonic() - started)} in this run")
    return output
