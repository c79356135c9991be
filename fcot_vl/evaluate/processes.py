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
    """What a launcher's environment says; each process is given a GPU of its own where there are any.

    Raises ValueError when the processes it speaks of do not find each other.
    """
    total = int(os.environ.get("WORLD_SIZE", "1"))
    if total < 2:
        return Processes()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    if state.num_processes != total:  # each would take itself for the only one, and write over the others
        raise ValueError(f"WORLD_SIZE says {total} processes, accelerate finds {state.num_processes}.")
    return Processes(state.process_index, state.num_processes, state)
