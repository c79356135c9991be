"""Progress bar of every long loop: completed and total count, rate, elapsed and remaining time."""

from __future__ import annotations

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fcot_vl.common.console import messages


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "-/s")


def progress_bar(shown: bool = True) -> Progress:
    """Create a progress bar as a context manager; `add_task(name, total=...)` adds a line to it.

    Args:
        shown: Whether to display the bar. Pass False on all processes but one.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=messages,
        disable=not shown,
    )
