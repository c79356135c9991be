"""Steps of a run, and the order in which they may start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path


@dataclass(frozen=True, eq=False)
class Step:
    """One call of a stage. Steps are compared by identity."""

    name: str
    call: Callable[[], object]
    """Function to call; a worker process must be able to unpickle it."""
    after: tuple[Step, ...] = ()
    """Steps that must be done before this one starts."""
    rows: Path | None = None
    """File that gains a row with every unit of progress, for the progress bar."""
    total: int | None = None
    """Number of rows at the end."""
    alone: bool = False
    """Run no other step at the same time, because this one measures time."""

    @property
    def log_name(self) -> str:
        """Name of the log file of this step."""
        return f"{self.name.replace(' ', '-')}.log"


class StepQueue:
    """Queue of the steps of a plan. Of the steps whose dependencies are done, those first in the plan come first.

    Raises:
        ValueError: If a step depends on one that is not in the plan.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self._place = {step: number for number, step in enumerate(steps)}
        for step in steps:
            if absent := [other.name for other in step.after if other not in self._place]:
                raise ValueError(f"step {step.name!r} depends on {absent[0]!r}, which is not in the plan")
        self._sorter = TopologicalSorter({step: step.after for step in steps})
        self._sorter.prepare()
        self._ready: list[Step] = []

    def __bool__(self) -> bool:
        """Return whether any step is not done yet."""
        return self._sorter.is_active()

    def ready(self) -> list[Step]:
        """Return the steps that can start now, in the order of the plan."""
        self._ready = sorted([*self._ready, *self._sorter.get_ready()], key=self._place.__getitem__)
        return list(self._ready)

    def start(self, step: Step) -> None:
        """Take a ready step out of the queue."""
        self._ready.remove(step)

    def finish(self, step: Step) -> None:
        """Record that a started step is done."""
        self._sorter.done(step)
