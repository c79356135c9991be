"""Runs the steps of a plan in this process, or several at a time in worker processes with one log file per step.

With several jobs, independent steps run in parallel, because small models do not fill a machine.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fcot_vl.common.console import messages
from fcot_vl.pipeline.step import Step, StepQueue
from fcot_vl.pipeline.worker import begin_worker, run_in_worker

logger = logging.getLogger(__name__)


class PipelineError(ValueError):
    """Error for a failed step; the message gives the step, its error and the path of its output."""


def run_here(steps: Sequence[Step], *, threads: int) -> None:
    """Run steps one after another in this process, with `threads` CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    queue, number = StepQueue(steps), 0
    try:
        while queue:
            step = queue.ready()[0]
            queue.start(step)
            number += 1
            started = time.monotonic()
            logger.info(f"[{number}/{len(steps)}] {step.name}")
            step.call()
            queue.finish(step)
            logger.info(f"{step.name}: {format_duration(time.monotonic() - started)}")
    finally:
        torch.set_num_threads(before)


def run_in_processes(steps: Sequence[Step], *, jobs: int, threads: int, logs: Path) -> None:
    """Run steps in `jobs` worker processes with `threads` CPU threads each; `logs` gets the output of each step.

    Raises:
        PipelineError: If a step failed or a process ended.
    """
    logs.mkdir(parents=True, exist_ok=True)
    pool = ProcessPoolExecutor(
        max_workers=jobs,
        mp_context=get_context("spawn"),
        initializer=begin_worker,
        initargs=(threads, os.getpid()),
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    running: dict[Future[str | None], _Running] = {}
    try:
        with Progress(*columns, console=messages, transient=True) as bars:
            _schedule(steps, jobs=jobs, pool=pool, running=running, logs=logs, bars=bars)
    except BrokenProcessPool:
        names = ", ".join(r.step.name for r in running.values())
        raise PipelineError(
            f"a process ended unexpectedly (out of memory?) during: {names}; see {logs}, lower `jobs`, run again"
        ) from None
    except BaseException:
        for process in list(pool._processes.values()):  # a step still running would block the next run
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass
class _Running:
    """Step that runs in a process, with its log and its progress bar."""

    step: Step
    log: Path
    bar: TaskID
    started: float = field(default_factory=time.monotonic)


def _schedule(
    steps: Sequence[Step],
    *,
    jobs: int,
    pool: ProcessPoolExecutor,
    running: dict[Future[str | None], _Running],
    logs: Path,
    bars: Progress,
) -> None:
    """Start every step once its dependencies are done, `jobs` at a time, until all are done or one has failed."""
    queue, n_done = StepQueue(steps), 0
    overall = bars.add_task("all steps", total=len(steps))
    while queue:
        for step in queue.ready():
            full = len(running) >= jobs or any(r.step.alone for r in running.values())
            if full or (step.alone and running):
                break
            queue.start(step)
            log = logs / step.log_name
            bar = bars.add_task(step.name, total=step.total)
            running[pool.submit(run_in_worker, step.call, log)] = _Running(step=step, log=log, bar=bar)
        ended, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
        for now in running.values():
            if now.step.rows is not None:
                bars.update(now.bar, completed=_count_rows(now.step.rows))
        for future in ended:
            now = running[future]
            problem = future.result()
            if problem is not None:
                raise PipelineError(f"{now.step.name}: {problem} (its output: {now.log})")
            del running[future]
            queue.finish(now.step)
            n_done += 1
            bars.remove_task(now.bar)
            bars.update(overall, completed=n_done)
            spent = format_duration(time.monotonic() - now.started)
            logger.info(f"[{n_done}/{len(steps)}] {now.step.name}: {spent}")


def _count_rows(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:  # the step has not begun yet
        return 0


def format_duration(seconds: float) -> str:
    """Return a duration as text, in seconds or minutes."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
