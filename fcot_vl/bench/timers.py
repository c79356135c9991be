"""Timestamps of a run, the memory the run uses, and the memory bandwidth of the device.

On a CPU, timestamps come from the host clock. On a GPU, they are CUDA events in its stream. The events are read only
after the run, so host and device overlap as they do without measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

COPIED = 2**28  # bytes per copy when measuring memory bandwidth


class Clock:
    """Record named timestamps; read the `seconds` between two of them after `stop`.

    Attributes:
        now: Clock of the host. On a machine shared with other processes, `time.process_time` counts only the CPU time
            of this process.
    """

    now: ClassVar[Callable[[], float]] = time.perf_counter

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.moments: dict[str, Any] = {}
        if self.on_gpu:
            torch.cuda.synchronize()  # earlier work must not count towards this run

    def mark(self, name: str) -> None:
        """Record a timestamp; on a GPU, the time at which its stream reaches this point."""
        if self.on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.moments[name] = event
        else:
            self.moments[name] = Clock.now()

    def stop(self) -> None:
        """Wait for the device once."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, since: str, until: str) -> float:
        """Return the seconds between two timestamps."""
        if self.on_gpu:
            return float(self.moments[since].elapsed_time(self.moments[until])) / 1e3
        return float(self.moments[until] - self.moments[since])


class Peak:
    """Peak memory of a run beyond the memory held before it: of the GPU, or of the process on Linux."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(device)
            self.before: int | None = torch.cuda.memory_allocated(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current size
        except OSError:
            self.before = None
        else:
            self.before = _resident("VmRSS")

    def extra_bytes(self) -> int | None:
        """Return the number of bytes, or None if the platform does not report it."""
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
    """Measure the memory bandwidth of the device in bytes per second, as the fastest of five copies after a warm-up.

    Counts both the bytes read and the bytes written.
    """
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(6):
        clock = Clock(device)
        clock.mark("begun")
        target.copy_(source)
        clock.mark("copied")
        clock.stop()
        seconds.append(clock.seconds("begun", "copied"))
    return 2 * COPIED / min(seconds[1:])  # the first copy warms up
