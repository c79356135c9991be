"""Files of a running evaluation: predictions and times, one JSON object per line, one file per process.

`evaluator.py` uses this module. A batch is on disk before the next one begins, and a line cut off by a kill is ignored,
so all rows in the files are valid. With several processes, each writes `predictions.N.jsonl`. The files are then joined
into `predictions.jsonl`, so an evaluation may resume with any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fcot_vl.common.files import append_rows, read_rows, write_rows

PREDICTIONS, TIMES = "predictions.jsonl", "times.jsonl"


class PredictionFiles:
    """Predictions and times in an output folder, written by one of several processes.

    Args:
        folder: Output folder.
        rank: Rank of this process, or None if it is the only one.
    """

    def __init__(self, folder: Path, rank: int | None = None) -> None:
        self.folder = folder
        self._own = {
            name: folder / (name if rank is None else _of(name, rank)) for name in (PREDICTIONS, TIMES)
        }

    def join(self) -> None:
        """Join the rows that all processes of all runs wrote into one file of predictions and one of times.

        Only one process may call this method, while no other writes. A question answered twice keeps its first answer.

        Raises:
            ValueError: If a file is damaged.
        """
        shares = {name: sorted(self.folder.glob(_of(name, "*"))) for name in (PREDICTIONS, TIMES)}
        rows: dict[str, dict[str, Any]] = {}
        for path in (self.folder / PREDICTIONS, *shares[PREDICTIONS]):
            for row in read_rows(path):
                rows.setdefault(row["id"], row)
        write_rows(self.folder / PREDICTIONS, rows.values())
        times = [row for path in (self.folder / TIMES, *shares[TIMES]) for row in read_rows(path)]
        write_rows(self.folder / TIMES, times)
        for path in (*shares[PREDICTIONS], *shares[TIMES]):
            path.unlink()

    def answered(self) -> dict[str, dict[str, Any]]:
        """Return the joined rows by id."""
        return {row["id"]: row for row in read_rows(self.folder / PREDICTIONS)}

    def add(self, rows: Sequence[dict[str, Any]], seconds: float) -> None:
        """Append the rows of a batch and the seconds it took."""
        append_rows(self._own[PREDICTIONS], rows)
        append_rows(self._own[TIMES], [{"questions": len(rows), "seconds": seconds}])

    def seconds_per_question(self) -> float | None:
        """Return the mean seconds per question of one process over the joined rows, or None if nothing was timed."""
        times = read_rows(self.folder / TIMES)
        answered = sum(row["questions"] for row in times)
        return sum(row["seconds"] for row in times) / answered if answered else None


def _of(name: str, rank: int | str) -> str:
    stem, _, suffix = name.partition(".")
    return f"{stem}.{rank}.{suffix}"
