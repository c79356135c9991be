"""One run per output folder: the second says who holds it, and no end of a process leaves a lock."""

from __future__ import annotations

import errno
import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fcot_vl.common import lock
from fcot_vl.common.lock import FILE, FolderLock
from fcot_vl.common.stage import StageError, lock_folder, open_stage

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import multiprocessing, sys, time
from pathlib import Path
from fcot_vl.common.stage import open_stage
stage = open_stage(Path(sys.argv[1]), "label", {}, {})
children = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)) for _ in range(2)]
for child in children:
    child.start()
print("held", *(child.pid for child in children), flush=True)
sys.stdin.readline()
stage.finish({"n": 1})
print("finished", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "GRACE", 0.3)


class Holder:
    """Another process that has begun the stage of a folder, with two forked children."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.children = [int(pid) for pid in self.say("held").split()[1:]]

    def say(self, expected: str) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(expected), line
        return line

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        for child in self.children:  # they hold the pipes too
            os.kill(child, signal.SIGKILL)
        self.process.communicate()


@pytest.mark.slow
def test_a_second_run_says_who_holds_the_folder_and_a_kill_leaves_nothing(tmp_path: Path) -> None:
    holder = Holder(tmp_path)
    try:
        with pytest.raises(StageError) as refused:
            open_stage(tmp_path, "label", {}, {})
        text = str(refused.value)
        record = json.loads((tmp_path / FILE).read_text())
        assert record["pid"] == holder.process.pid
        for said in (f"process {holder.process.pid} on {record['host']} since {record['since']}", "-c"):
            assert said in text
        assert "\n" not in text
        with pytest.raises(StageError, match="another run is writing here"), lock_folder(tmp_path):
            pass
        holder.process.send_signal(signal.SIGKILL)
        holder.process.wait()
        os.kill(holder.children[0], 0)  # a forked child still lives, and does not keep the lock
        stage = open_stage(tmp_path, "label", {}, {})
        assert stage.record["runs"] == 2
        stage.finish({})
        assert not (tmp_path / FILE).exists()
    finally:
        holder.end()


@pytest.mark.slow
def test_a_finished_stage_is_free_and_a_waiting_run_finds_it(tmp_path: Path) -> None:
    holder = Holder(tmp_path)
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            waiting = pool.apply_async(open_stage, (tmp_path, "label", {}, {}, None, True))
            time.sleep(0.5)
            assert not waiting.ready()
            holder.go_on()
            holder.say("finished")
            assert waiting.get(30).done
            assert open_stage(tmp_path, "label", {}, {}).done, "its process still lives"
            with FolderLock(tmp_path):
                pass
    finally:
        holder.end()


def test_one_process_may_open_its_folder_again(tmp_path: Path) -> None:
    first = open_stage(tmp_path, "label", {}, {})
    second = open_stage(tmp_path, "label", {}, {})
    assert (tmp_path / FILE).exists()
    second.finish({})
    assert not first.done
    assert not (tmp_path / FILE).exists(), "what a failed run left in this process does not keep it"
    del first
    gc.collect()


def test_a_dropped_stage_is_free(tmp_path: Path) -> None:
    def fail() -> None:
        open_stage(tmp_path, "label", {}, {})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    gc.collect()
    assert not (tmp_path / FILE).exists()


def test_what_a_power_loss_leaves_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"pid": 1, "host": "gone"')
    with lock_folder(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()


def test_without_locks_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Callable[[], str]
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", missing)
    open_stage(tmp_path, "label", {}, {}).finish({})
    assert "cannot be locked (No locks available)" in log()
    (tmp_path / "new").mkdir()
    with monkeypatch.context() as changed:
        changed.setattr(lock.sys, "platform", "win32")
        FolderLock(tmp_path / "new").release()
    assert "this system has no flock" in log()


def test_a_child_leaves_the_lock_with_its_parent(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        child = os.fork()
        if child == 0:
            os._exit(3 if lock._HELD else 0)
        assert os.waitpid(child, 0)[1] == 0
        assert (tmp_path / FILE).exists()
