"""Draw all figures of a report into its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fcot_vl.report.examples import Example
from fcot_vl.report.figures.by_density import density_figure
from fcot_vl.report.figures.by_ratio import ratio_figure
from fcot_vl.report.figures.by_task import retention_figure
from fcot_vl.report.figures.example import example_figure
from fcot_vl.report.figures.losses import loss_figure
from fcot_vl.report.figures.ranking import ranking_figure
from fcot_vl.report.figures.tradeoff import tradeoff_figure
from fcot_vl.report.run_data import RunData

FIGURES = {  # each is drawn to NAME.png
    "retention": retention_figure,
    "ratios": ratio_figure,
    "peers": ranking_figure,
    "density": density_figure,
    "losses": loss_figure,
    "tradeoff": tradeoff_figure,
}


def draw_figures(run: RunData, output: Path) -> dict[str, str]:
    """Draw all figures that the run has data for, and return their file names in `output` by their names."""
    drawn = {name: figure(run, output / f"{name}.png") for name, figure in FIGURES.items()}
    return {name: path.name for name, path in drawn.items() if path is not None}


def draw_examples(run: RunData, examples: Sequence[Example], output: Path) -> list[str]:
    """Draw one figure per example, and return their file names in `output`."""
    return [
        example_figure(run, example, output / f"example{number}-{example.task}.png").name
        for number, example in enumerate(examples, 1)
    ]
