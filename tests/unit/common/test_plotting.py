"""Figures: a legend of many names has room."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fcot_vl.common.plotting import finish, legend


@pytest.mark.parametrize("names", [3, 18, 30])
def test_a_legend_lies_between_title_and_caption(names: int, tmp_path: Path) -> None:
    figure = Figure(figsize=(11, 4.3))
    panels = list(figure.subplots(1, 2))
    for i in range(names):
        panels[0].plot([0, 1], [i, i + 1], label=f"baseline number {i}")
    legend(panels)
    finish(figure, tmp_path / "figure.png", "A caption of one line.", "A title")
    drawn = panels[-1].get_legend()
    assert drawn is not None
    box = drawn.get_window_extent().transformed(figure.transFigure.inverted())
    assert box.y0 > 0.05 and box.y1 < 0.95
