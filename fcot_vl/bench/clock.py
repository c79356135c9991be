"""Moments of a run and the seconds between them, the memory it took, and how fast the device's memory is.

On a CPU by the host's clock. On a GPU by events in its stream, read only when the run is over: host and device go on
side by side as they do when nobody measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

COPIED = 2**28  # bytes copied to measure a memory's rate


class Clock:
    """Notes moments by name; `seconds` between two of them may be asked after `stop`.

    now: the host's clock. On a machine that others use, `time.process_time` tells what this process did itself.
    """

    now: ClassVar[Callable[[], float]] = time.perf_counter

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.moments: dict[str, Any] = {}
        if self.on_gpu:
            torch.cuda.synchronize()  # what was begun before is none of this run's business

    def mark(self, name: str) -> None:
        """Note this moment: on a GPU, when its stream gets here."""
        if self.on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.moments[name] = event
        else:
            self.moments[name] = Clock.now()

    def stop(self) -> None:
        """Wait for the device, once."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, since: str, until: str) -> float:
        """Seconds from one moment to another."""
        if self.on_gpu:
            return float(self.moments[since].elapsed_time(self.moments[until])) / 1e3
        return float(self.moments[until] - self.moments[since])


class Peak:
    """Memory a run takes on top of what was held before: of the GPU, or of the process where Linux tells."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(device)
            self.before: int | None = torch.cuda.memory_allocated(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # sets the process's peak to what it holds now
        except OSError:
            self.before = None
        else:
            self.before = _resident("VmRSS")

    def extra_bytes(self) -> int | None:
        """Bytes, or None where nobody tells."""
        if self.before is None:
            return None
        after = torch.cuda.max_memory_allocated() if self.cuda else _resident("VmHWM")
        return None if after is None else max(0, after - self.before)


def _resident(field_name: str) -> int | None:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field_name}:"):
            return int(line.split()[1]) * 1024
    return None


def memory_rate(device: torch.device) -> float:
    """Bytes a second that the device's memory gives and takes: the fastest of five copies, read and written bytes."""
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(6):  # the first one warms up
        clock = Clock(device)
        clock.mark("begun")
        target.copy_(source)
        clock.mark("copied")
        clock.stop()
        best = min(best, clock.seconds("begun", "copied"))
    return 2 * COPIED / best
