"""Pipeline of a recipe: synthesize, realign, post-train, evaluate, bench and report, each step a resumable stage.

The command line uses this package, which uses all others. `recipe` reads a recipe, `plan` lists its steps with their
dependencies (`baselines` those of the training-free baselines), `scheduler` runs them here or in several processes,
and `run` does all of this. After an interruption, rerun the same recipe: finished stages return at once and the
interrupted one resumes.
"""

from fcot_vl.pipeline.run import run_recipe

__all__ = ["run_recipe"]
