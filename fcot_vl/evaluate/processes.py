"""Several processes that evaluate together, as `accelerate launch` or `torchrun` starts them; usually there is one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

PATIENCE = timedelta(days=7)  # a process done with its share waits for the slowest


@dataclass(frozen=True)
class Processes:
    """This process among all.

    rank: its number. total: how many there are. state: accelerate's `PartialState`; None for a single process.
    """

    rank: int = 0
    total: int = 1
    state: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that opens, joins and sums up."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.state is not None:
            self.state.wait_for_everyone()

    def say(self, text: str) -> None:
        """Print a line, once for all processes."""
        if self.is_first:
            print(text, flush=True)


def find_processes() -> Processes:
    """What a launcher's environment says; each process is given a GPU of its own where there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    from accelerate import PartialState

    state = PartialState(timeout=PATIENCE)
    return Processes(state.process_index, state.num_processes, state)
