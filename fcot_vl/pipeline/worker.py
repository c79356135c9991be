"""Initializes a worker process, and runs a step in it with its output in a log file."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from fcot_vl.common.console import set_up_logging
from fcot_vl.common.errors import one_line


def begin_worker(threads: int, parent: int) -> None:
    """Set up the log and the number of CPU threads, and exit with the parent process.

    Without the parent, a step of a killed run would write into folders that the next run resumes.
    """
    set_up_logging()
    torch.set_num_threads(threads)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_in_worker(call: Callable[[], object], log: Path) -> str | None:
    """Run a step with its output in `log`; return the reason if it failed, else None."""
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        call()
    except Exception as error:
        traceback.print_exc()
        return one_line(error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return None
