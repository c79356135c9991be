"""Processes of a distributed evaluation, started by `accelerate launch` or `torchrun`; usually there is only one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

PATIENCE = timedelta(days=7)  # timeout: a process that is done with its share waits for the slowest


@dataclass(frozen=True)
class Processes:
    """This process among all processes.

    Attributes:
        rank: Rank of this process.
        total: World size, the number of processes.
        state: `PartialState` of accelerate, or None for a single process.
    """

    rank: int = 0
    total: int = 1
    state: Any = None

    @property
    def is_first(self) -> bool:
        """Return True on the process that opens the stage, joins the files and writes the result."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process has reached this point."""
        if self.state is not None:
            self.state.wait_for_everyone()

    def say(self, text: str) -> None:
        """Print a line on the first process only."""
        if self.is_first:
            print(text, flush=True)


def find_processes() -> Processes:
    """Find the processes from the launcher's environment; each gets a GPU of its own if there are any.

    Raises:
        ValueError: If the number of connected processes differs from `WORLD_SIZE`.
    """
    total = int(os.environ.get("WORLD_SIZE", "1"))
    if total < 2:
        return Processes()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    if state.num_processes != total:  # each would act as the only process and overwrite the others' files
        raise ValueError(f"WORLD_SIZE says {total} processes, accelerate finds {state.num_processes}.")
    return Processes(state.process_index, state.num_processes, state)
