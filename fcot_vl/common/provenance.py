"""Provenance of a result: commit, hardware, versions, date."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from fcot_vl.version import __version__


def provenance() -> dict[str, Any]:
    """Return commit, hardware and date, as every result records them."""
    return {"commit": git_commit(), "hardware": hardware(), "date": now()}


def now() -> str:
    """Return the date and time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def made_here() -> str:
    """Return the provenance for a figure's caption: commit, hardware, date."""
    commit = git_commit() or "unknown"
    head, _, mark = commit.partition("-")
    return f"Commit {head[:10]}{'-' + mark if mark else ''}; {hardware()}; {now()[:10]}."


def versions() -> dict[str, str]:
    """Return the versions that affect a result: this package, Python, torch, transformers."""
    found = {"fcot-vl": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers"):
        found[package] = importlib.metadata.version(package)
    return found


@lru_cache
def git_commit() -> str | None:
    """Return the commit that this package runs from, or None outside a git checkout.

    `-dirty` is appended if its files differ from the commit.
    """
    here = Path(__file__).resolve()
    package = here.parents[1]

    def git(*arguments: str) -> str | None:
        try:
            ran = subprocess.run(
                ["git", "-C", str(package), *arguments],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return ran.stdout.strip() if ran.returncode == 0 else None

    # An installed copy may lie inside an unrelated checkout: it is this package's checkout only if it tracks this file.
    if git("ls-files", "--error-unmatch", str(here.relative_to(package))) is None:
        return None
    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit}-dirty" if git("status", "--porcelain", "--", ".") else commit


@lru_cache
def hardware() -> str:
    """Describe the hardware in one line: the GPU if torch sees one, and the CPU with its cores and memory (GiB)."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    host = f"{_cpu_model()}, {cores} cores, {_memory_gib():.0f} GiB"
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        return f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB; host {host}"
    return host


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown CPU"


def _memory_gib() -> float:
    """Return the memory in GiB of the machine or of this process's control group, whichever is less."""
    total = float("nan")
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit) / 2**30) if limit.isdigit() else total
