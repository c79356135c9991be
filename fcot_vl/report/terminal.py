"""Main table of a report in the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from fcot_vl.report.formatting import number


def terminal_table(content: dict[str, Any]) -> Table:
    """Build the table of the main numbers of report.json in 80 columns; report.md has the rest."""
    facts = content["provenance"]
    table = Table(
        title=f"{facts['model']}, {facts['samples']} test pages, data {facts['data']}",
        caption="kept: % of the teacher's score, mean over tasks; tokens: visual, nominal/mean over layers\n"
        f"commit {facts['commit']}; {facts['hardware']}; {facts['date']}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("model", max_width=38, overflow="fold")
    for name in ("score", "kept %", "95%", "tokens", "ms/page", "faster"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in content["models"]:
        bounds = row["retention_ci"]
        nominal, mean = row["visual_tokens_nominal"], row["visual_tokens_layer_mean"]
        tokens = number(nominal, 0, 1)
        table.add_row(
            row["label"],
            number(row["mean_over_tasks"]),
            number(row["retention"]),
            f"{number(bounds[0], 0)}-{number(bounds[1], 0)}" if bounds else "",
            tokens if mean in (nominal, None) else f"{tokens}/{number(mean, 0, 1)}",
            number(row["bench_seconds"], 0, 1e3),
            f"{row['bench_faster']:.2f}x" if row["bench_faster"] else "",
        )
    return table
