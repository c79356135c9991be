"""Processes of a distributed evaluation, started by `accelerate launch` or `torchrun`; usually there is only one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

TIMEOUT = timedelta(days=7)  # a process that has finished its share waits for the slowest


@dataclass(frozen=True)
class ProcessGroup:
    """This process and its place among all processes.

    Attributes:
        rank: Rank of this process.
        world_size: Number of processes.
        state: `PartialState` of accelerate, or None for a single process.
    """

    rank: int = 0
    world_size: int = 1
    state: Any = None

    @property
    def is_main(self) -> bool:
        """Return True on rank 0, which opens the stage, joins the files and writes the result."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process has reached this point."""
        if self.state is not None:
            self.state.wait_for_everyone()


def connect_processes() -> ProcessGroup:
    """Connect to the other processes of the launcher; each gets a GPU of its own if there are any.

    Raises:
        ValueError: If the number of connected processes differs from `WORLD_SIZE`.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size < 2:
        return ProcessGroup()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=TIMEOUT)
    if (
        state.num_processes != world_size
    ):  # each would act as the only process and overwrite the others' files
        raise ValueError(
            f"WORLD_SIZE is {world_size}, but accelerate connected {state.num_processes} processes; start with "
            "accelerate launch or torchrun"
        )
    return ProcessGroup(state.process_index, state.num_processes, state)
