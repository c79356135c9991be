"""Stage folders, which every step of the pipeline reads and writes.

This is the bottom layer of the package. A stage is one step (synthesize, realign, post-train, evaluate, bench, report)
with one output folder. The `stage.json` of the folder records the settings, the inputs, the machine, and whether the
stage is finished. This makes the pipeline resumable: a finished stage returns at once, an interrupted one resumes, and
one with other settings is refused, so that results are never mixed silently.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from fcot_vl.common.errors import one_line
from fcot_vl.version import __version__

FILE = "stage.json"


class StageError(ValueError):
    """Error for a stage folder that cannot be used as requested; the message says why and what to do."""


@dataclass
class Stage:
    """Output folder of one stage. `done` is True if the same stage already finished here."""

    folder: Path
    name: str
    done: bool
    record: dict[str, Any]
    _started: float = field(default_factory=time.monotonic, repr=False)

    def finish(self, figures: dict[str, Any]) -> None:
        """Mark the stage as done, atomically, with its headline numbers.

        `seconds` in the record is the wall time of the run that finished. It excludes earlier, interrupted runs; `runs`
        counts how often the stage was opened.
        """
        self.record |= {
            "status": "done",
            "seconds": round(time.monotonic() - self._started, 3),
            "figures": _plain(figures),
        }
        write_json(self.folder / FILE, self.record)
        self.done = True

    @property
    def figures(self) -> dict[str, Any]:
        """Headline numbers passed to `finish`; empty while the stage is running."""
        figures: dict[str, Any] = self.record["figures"]
        return figures


def open_stage(
    folder: Path, name: str, settings: dict[str, Any], inputs: dict[str, str], seed: int | None = None
) -> Stage:
    """Create, resume or recognise the stage in `folder`.

    Returns:
        The stage. Its `done` is True if the same stage with the same settings, inputs and seed already finished; the
        caller then returns at once. If it was interrupted, `done` is False and the caller resumes from the contents of
        the folder.

    Raises:
        StageError: If the folder belongs to another stage, or to this one with other settings, inputs or seed (the
            message lists the differing keys), if its `stage.json` cannot be read, or if the folder cannot be written.
    """
    folder = Path(folder)
    asked = {"stage": name, "inputs": _plain(inputs), "settings": _plain(settings), "seed": seed}
    before = _read(folder)
    if before is not None:
        _refuse_other(folder, before, asked)
    done = before is not None and before["status"] == "done"
    if done and before is not None:
        return Stage(folder, name, True, before)
    record = {
        "stage": name,
        "status": "running",
        "inputs": asked["inputs"],
        "settings": asked["settings"],
        "seed": seed,
        "versions": versions(),
        "commit": git_commit(),
        "hardware": hardware(),
        "date": now(),
        "runs": 1 + (before or {}).get("runs", 0),
        "seconds": None,
        "figures": {},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, record)
    except OSError as error:
        raise StageError(
            f"{folder}: cannot write here ({error.strerror}); choose another output folder"
        ) from None
    return Stage(folder, name, False, record)


def read_stage(folder: Path) -> dict[str, Any]:
    """Read the record of a stage folder.

    Raises:
        StageError: If there is no record or it cannot be read.
    """
    record = _read(Path(folder))
    if record is None:
        raise StageError(f"{folder}: no {FILE} here; run the stage that writes this folder first")
    return record


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: a reader sees either the old file or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a log with one JSON value per line; return no rows if there is no file.

    A last line that was cut off by a kill is ignored.

    Raises:
        ValueError: If any other line is not JSON.
    """
    if not path.exists():
        return []
    rows = []
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                break
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise ValueError(
                    f"{path}: line {number} is not JSON; delete the folder and run again"
                ) from None
    return rows


def hash_file(path: Path) -> str:
    """Return the SHA-256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256 over the names and bytes of files, independent of their order."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        digest.update(f"{path.name} {hash_file(path)}\n".encode())
    return digest.hexdigest()


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


def _plain(value: Any) -> Any:
    """Return `value` after a JSON round trip, so that the comparison with a record read from disk is exact."""
    return json.loads(json.dumps(value, default=str))


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise StageError(f"{folder}: is a file, not a folder; choose another output folder") from None
    except (OSError, ValueError) as error:
        raise StageError(
            f"{path}: cannot be read ({one_line(error)}); delete the folder or choose another output folder"
        ) from None
    if not isinstance(record, dict) or not {"stage", "status", "settings", "inputs"} <= record.keys():
        raise StageError(f"{path}: not a stage record; delete the folder or choose another output folder")
    return record


def _refuse_other(folder: Path, before: dict[str, Any], asked: dict[str, Any]) -> None:
    if before["stage"] != asked["stage"]:
        raise StageError(
            f"{folder}: holds the stage {before['stage']!r}, not {asked['stage']!r}; choose another output folder"
        )
    differing = [
        f"{part}.{key} (there {json.dumps(before[part].get(key))}, asked {json.dumps(asked[part].get(key))})"
        for part in ("settings", "inputs")
        for key in sorted(before[part].keys() | asked[part].keys())
        if before[part].get(key) != asked[part].get(key)
    ]
    if before.get("seed") != asked["seed"]:
        differing.append(f"seed (there {before.get('seed')}, asked {asked['seed']})")
    if differing:
        raise StageError(
            f"{folder}: was begun with other settings: {'; '.join(differing)}. "
            "Give the same settings to resume, or delete the folder, or choose another output folder"
        )
