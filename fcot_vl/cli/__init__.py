"""Command line: one command per stage, and the recipes.

Training commands take every field of their dataclass as a flag (`--learning-rate 1e-3`) and the recipe section of the
same name as the starting point (`--recipe demo`).
"""

from fcot_vl.cli.app import main

__all__ = ["main"]
