"""Stage folders, which every step of the pipeline reads and writes.

This is the bottom layer of the package. A stage is one step (synthesize, realign, post-train, evaluate, bench, report)
with one output folder. The `stage.json` of the folder records the settings, the inputs, the machine, and whether the
stage is finished. This makes the pipeline resumable: a finished stage returns at once, an interrupted one resumes, and
one with other settings is refused, so that results are never mixed silently. A folder that another run is writing to is
refused too (`lock.py`).
"""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcot_vl.common.errors import one_line
from fcot_vl.common.files import write_json
from fcot_vl.common.lock import FolderLock, LockedError
from fcot_vl.common.provenance import provenance, versions

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
    lock: FolderLock | None = field(default=None, repr=False, compare=False)
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
        if self.lock is not None:
            self.lock.release()

    @property
    def figures(self) -> dict[str, Any]:
        """Headline numbers passed to `finish`; empty while the stage is running."""
        figures: dict[str, Any] = self.record["figures"]
        return figures


def open_stage(
    folder: Path,
    name: str,
    settings: dict[str, Any],
    inputs: dict[str, str],
    seed: int | None = None,
    former: Callable[[], dict[str, str]] | None = None,
    wait: bool = False,
) -> Stage:
    """Create, resume or recognize the stage in `folder`.

    A stage that is not done holds the lock of its folder until it is finished, or until the object is deleted.

    Args:
        former: Function that returns `inputs` as earlier versions recorded them. A folder that records them is
            accepted, and keeps them.
        wait: Wait while another run writes to the folder, for folders that runs share. Default: refuse.

    Returns:
        The stage. Its `done` is True if the same stage with the same settings, inputs and seed already finished; the
        caller then returns at once. If it was interrupted, `done` is False and the caller resumes from the contents of
        the folder.

    Raises:
        StageError: If the folder belongs to another stage, or to this one with other settings, inputs or seed (the
            message lists the differing keys), if its `stage.json` cannot be read, if the folder cannot be written, or
            if another run is writing to it.
    """
    folder = Path(folder)
    asked = {"stage": name, "inputs": _plain(inputs), "settings": _plain(settings), "seed": seed}
    before = _read_same(folder, asked, former)
    if before is not None and before["status"] == "done":
        return Stage(folder, name, True, before)
    lock = _lock(folder, wait)
    before = _read_same(folder, asked, former)  # again: the run that held the lock may have finished it
    if before is not None and before["status"] == "done":
        lock.release()
        return Stage(folder, name, True, before)
    record = {
        "stage": name,
        "status": "running",
        "inputs": asked["inputs"],
        "settings": asked["settings"],
        "seed": seed,
        "versions": versions(),
        **provenance(),
        "runs": 1 + (before or {}).get("runs", 0),
        "seconds": None,
        "figures": {},
    }
    with _writing(folder):
        write_json(folder / FILE, record)
    stage = Stage(folder, name, False, record, lock=lock)
    weakref.finalize(stage, lock.release)
    return stage


def lock_folder(folder: Path) -> FolderLock:
    """Create an output folder without a `stage.json` and lock it, as a context manager.

    Raises:
        StageError: If the folder cannot be written, or another run is writing to it.
    """
    return _lock(Path(folder), False)


def _lock(folder: Path, wait: bool) -> FolderLock:
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return FolderLock(folder, wait)
        except LockedError as error:
            raise StageError(str(error)) from None


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StageError(
            f"{folder}: cannot write here ({error.strerror}); choose another output folder"
        ) from None


def read_stage(folder: Path) -> dict[str, Any]:
    """Read the record of a stage folder.

    Raises:
        StageError: If there is no record or it cannot be read.
    """
    record = _read(Path(folder))
    if record is None:
        raise StageError(f"{folder}: no {FILE} here; run the stage that writes this folder first")
    return record


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


def _read_same(
    folder: Path, asked: dict[str, Any], former: Callable[[], dict[str, str]] | None
) -> dict[str, Any] | None:
    """Return the record of a folder, if there is one, after checking that it is of the same stage.

    Where it has the inputs that `former` returns, they replace those in `asked`.
    """
    before = _read(folder)
    if before is not None:
        if (
            former is not None
            and before["inputs"] != asked["inputs"]
            and before["inputs"] == _plain(former())
        ):
            asked["inputs"] = before["inputs"]
        _refuse_other(folder, before, asked)
    return before


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
