"""The files of an evaluation that is under way: predictions and times, a JSON object a line, one file a process.

Below the runner. A batch is on disk before the next begins, and a line cut off by a kill is passed over, so whatever
lies here counts. A process of several writes `predictions.N.jsonl`; joined, all of it is `predictions.jsonl` again, so
that an evaluation may go on with any number of processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fcot_vl.stage import read_rows

PREDICTIONS, TIMES = "predictions.jsonl", "times.jsonl"


class Files:
    """Predictions and times in an output folder, as one process of several sees them.

    Args:
        folder: the output folder.
        rank: which process this is; None where it is the only one.
    """

    def __init__(self, folder: Path, rank: int | None = None) -> None:
        self.folder = folder
        self._own = {
            name: folder / (name if rank is None else _of(name, rank)) for name in (PREDICTIONS, TIMES)
        }

    def join(self) -> None:
        """Put what any process of any run left into the files of one; for one process, while no other writes.

        A question answered twice keeps its first answer. Raises ValueError for a file that is damaged.
        """
        shares = {name: sorted(self.folder.glob(_of(name, "*"))) for name in (PREDICTIONS, TIMES)}
        rows: dict[str, dict[str, Any]] = {}
        for path in (self.folder / PREDICTIONS, *shares[PREDICTIONS]):
            for row in read_rows(path):
                rows.setdefault(row["id"], row)
        write_lines(self.folder / PREDICTIONS, rows.values())
        times = [row for path in (self.folder / TIMES, *shares[TIMES]) for row in read_rows(path)]
        write_lines(self.folder / TIMES, times)
        for path in (*shares[PREDICTIONS], *shares[TIMES]):
            path.unlink()

    def answered(self) -> dict[str, dict[str, Any]]:
        """What is joined so far: row by id."""
        return {row["id"]: row for row in read_rows(self.folder / PREDICTIONS)}

    def add(self, rows: Sequence[dict[str, Any]], seconds: float) -> None:
        """Append a batch that took so long."""
        append_lines(self._own[PREDICTIONS], rows)
        append_lines(self._own[TIMES], [{"questions": len(rows), "seconds": seconds}])

    def seconds_per_question(self) -> float | None:
        """What one process took for a question, on average over what is joined; None when nothing was timed."""
        times = read_rows(self.folder / TIMES)
        answered = sum(row["questions"] for row in times)
        return sum(row["seconds"] for row in times) / answered if answered else None


def _of(name: str, rank: int | str) -> str:
    stem, _, suffix = name.partition(".")
    return f"{stem}.{rank}.{suffix}"


def append_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows, on disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write the file anew; a reader sees the old or the new one."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    append_lines(partial, list(rows))
    partial.replace(path)
