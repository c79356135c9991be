"""Lock of an output folder: one run writes, a second one stops and says who holds it, and a crash leaves nothing.

The lock is the operating system's (`flock`) on the file `.lock` of the folder. It ends with the process, however the
process ends. Processes forked by the holder close their copy of the file, so that none of them keeps the lock alive.
A process may take a lock that it holds again, as when a failed run is repeated; the last one to take it releases it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shlex
import socket
import sys
import threading
import time
from pathlib import Path

from fcot_vl.common.provenance import now

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

FILE = ".lock"
GRACE = 2.0  # seconds in which the helpers of a killed run may end
HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class LockedError(ValueError):
    """Error for a folder that another run writes to; the message says which run."""


class FolderLock:
    """Lock that is held on a folder until `release` is called or the process ends.

    Args:
        folder: Folder to lock; it exists.
        wait: Wait until the folder is free, after a line that says who holds it.

    Raises:
        LockedError: If another process holds the lock, and not `wait`.
        OSError: If the lock file cannot be written.
    """

    def __init__(self, folder: Path, wait: bool = False) -> None:
        self.path = folder.resolve() / FILE
        with _GUARD:
            held = _HELD.get(self.path)
            file = _acquire(self.path, folder, wait) if held is None else held[1]
            _HELD[self.path] = (id(self), file)

    def release(self) -> None:
        """Release the lock. This does nothing if it is released already, or if this process has taken it again."""
        with _GUARD:
            owner, file = _HELD.get(self.path, (None, None))
            if owner != id(self):
                return
            del _HELD[self.path]
            if file is not None:
                with contextlib.suppress(OSError):
                    self.path.unlink()  # while it is held: see `_acquire`
                os.close(file)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_HELD: dict[Path, tuple[int, int | None]] = {}  # the last to take it and the open file, by lock file
_GUARD = threading.RLock()


def _forget_in_child() -> None:
    """Close the copies of the lock files in a forked process. This leaves the locks with the parent."""
    global _GUARD
    _GUARD = threading.RLock()
    for _, file in _HELD.values():
        if file is not None:
            os.close(file)
    _HELD.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_in_child)


def _acquire(path: Path, folder: Path, wait: bool) -> int | None:
    """Return the open lock file with the lock on it, or None where the file system has no locks."""
    if sys.platform == "win32":
        _warn_unlocked(folder, "this system has no flock")
        return None
    until, said = time.monotonic() + GRACE, False
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(file)
            os.close(file)
            if error.errno not in HELD:
                _warn_unlocked(folder, error.strerror or str(error))
                return None
            if not wait and time.monotonic() > until:
                raise LockedError(
                    f"{folder}: another run is writing here ({holder}); wait until it ends, or choose another output "
                    "folder"
                ) from None
            if wait and not said and time.monotonic() > until:
                logger.info(f"{folder}: waiting for another run that writes here ({holder})")
                said = True
            time.sleep(0.1)
            continue
        # The last holder removes the file while it holds the lock. What was locked here may be that removed file.
        if _is_at(file, path):
            break
        os.close(file)
    os.ftruncate(file, 0)
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    record = {"pid": os.getpid(), "host": socket.gethostname(), "since": now(), "command": command}
    os.pwrite(file, json.dumps(record).encode("ascii"), 0)
    return file


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _holder(file: int) -> str:
    """Describe the holder of a lock from its file."""
    try:
        record = json.loads(os.pread(file, 65536, 0))
        return f"process {record['pid']} on {record['host']} since {record['since']}: {record['command']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun
        return "unknown process"


def _warn_unlocked(folder: Path, reason: str) -> None:
    logger.warning(f"{folder} cannot be locked ({reason}); make sure that no other run writes there")


__all__ = ["FolderLock", "LockedError"]
