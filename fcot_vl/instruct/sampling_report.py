"""Yield of sampling by task, counted from rows, as a table, a JSON file and a figure."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from fcot_vl.common.files import write_json
from fcot_vl.common.plotting import FAINT, INK, clean, finish, legend
from fcot_vl.common.provenance import made_here

# Outcomes of a sampled answer. Those in `RIGHT` are correct.
FAILED, CUT_OFF, WRONG, BARE = "failed", "cut off", "wrong", "bare answer"
DUPLICATE, SPARE, KEPT = "duplicate", "spare", "kept"
RIGHT = (BARE, DUPLICATE, SPARE, KEPT)
# Reasons why a question was not asked.
LEFT, NO_ANSWER = "left by its task", "no short answer"
BARS = {"sampled": "#c3cad3", "right": "#0b66a8", "kept": "#0f9d75"}


class SamplingReport:
    """Counts by task.

    Attributes:
        outcomes: Number of each outcome, by task.
        asked, solved: Questions that were sampled, and questions with a kept answer, by task.
    """

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.asked: dict[str, set[tuple[int, int]]] = defaultdict(set)
        self.solved: dict[str, set[tuple[int, int]]] = defaultdict(set)

    def count(self, row: dict[str, Any]) -> None:
        """Count a row of a sampled answer, or of a question that was not asked."""
        # External data mostly has no task. The name of its source is used instead.
        task, question = row["task"] or row["source"], (row["index"], row["turn"])
        self.outcomes[task][row["outcome"]] += 1
        if row["outcome"] not in (LEFT, NO_ANSWER):
            self.asked[task].add(question)
        if row["outcome"] == KEPT:
            self.solved[task].add(question)

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the questions, the sampled, correct and kept answers and their shares, for each task and for `all`."""
        tasks = sorted(self.outcomes)
        rows = {task: self._row([task]) for task in tasks}
        return {**rows, "all": self._row(tasks)}

    def _row(self, tasks: list[str]) -> dict[str, Any]:
        outcomes = sum((self.outcomes[task] for task in tasks), Counter[str]())
        not_asked = outcomes[LEFT] + outcomes[NO_ANSWER]
        sampled = outcomes.total() - not_asked
        right = sum(outcomes[outcome] for outcome in RIGHT)
        questions = sum(len(self.asked[task]) for task in tasks)
        solved = sum(len(self.solved[task]) for task in tasks)
        return {
            "questions": questions,
            "not_asked": not_asked,
            "sampled": sampled,
            "right": right,
            "kept": outcomes[KEPT],
            "solved": solved,
            "right_share": round(right / sampled, 4) if sampled else None,
            "solved_share": round(solved / questions, 4) if questions else None,
            "outcomes": dict(sorted(outcomes.items())),
        }

    def table(self) -> Table:
        """Return the counts as a table for the terminal, one row per task."""
        table = Table(box=None, pad_edge=False)
        table.add_column("task")
        for column in ("questions", "not asked", "sampled", "right", "kept", "solved"):
            table.add_column(column, justify="right")
        for task, row in self.rows().items():
            counts = [
                f"{row[name]:,}" for name in ("questions", "not_asked", "sampled", "right", "kept", "solved")
            ]
            for at, share in ((3, row["right_share"]), (5, row["solved_share"])):
                counts[at] = "" if share is None else f"{counts[at]} {100 * share:.1f}%"
            table.add_row(task, *counts)
        return table

    def write(self, folder: Path, title: str) -> None:
        """Write `yield.json` and `yield.png`."""
        write_json(folder / "yield.json", self.rows())
        rows = {task: row for task, row in self.rows().items() if row["sampled"] and task != "all"}
        if rows:
            draw(rows, folder / "yield.png", title)


def draw(rows: dict[str, dict[str, Any]], path: Path, title: str) -> None:
    """Draw bars by task: answers sampled, correct and kept."""
    figure = Figure(figsize=(8.4, 1.5 + 0.75 * len(rows)))
    axes = figure.add_subplot()
    clean(axes, "x")
    for bar, (name, color) in enumerate(BARS.items()):
        places = [at + 0.27 * (bar - 1) for at in range(len(rows))]
        drawn = axes.barh(places, [row[name] for row in rows.values()], height=0.25, color=color, label=name)
        shares = [_share(row, name) for row in rows.values()]
        axes.bar_label(drawn, shares, padding=3, fontsize=8, color=INK)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlabel("answers", fontsize=8.5, color=FAINT)
    legend([axes])
    finish(figure, path, made_here(), title)


def _share(row: dict[str, Any], name: str) -> str:
    count = f"{row[name]:,}"
    return count if name == "sampled" else f"{count} ({100 * row[name] / row['sampled']:.0f}%)"
