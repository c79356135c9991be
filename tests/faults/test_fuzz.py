"""A short run of tools/fuzz.py on odd inputs, and tests that it notices each kind of fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BAD = """
import json, os, subprocess, sys, time
sys.path.insert(0, "tools")
import fuzz

def bad(folder, random_, processor):
    match random_.randrange(6):
        case 0: raise KeyError("a library's")
        case 1: time.sleep(9)
        case 2: (folder / "written").write_text("x")
        case 3: subprocess.run(["true"])
        case 4:
            import socket
            socket.getaddrinfo("localhost", 80)
        case 5: exec(compile("1", str(folder / "code.py"), "exec"))

fuzz.SECONDS = 1
fuzz.KINDS["images"] = bad
fuzz.signal.signal(fuzz.signal.SIGALRM, fuzz.hang)
print(json.dumps(fuzz.run("images", 30, 0, fuzz.Watch())))
"""


def run(*command: str) -> list[dict]:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.stdout, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize(
    ("kind", "count"), [("records", 400), ("images", 400), ("templates", 400), ("checkpoints", 40)]
)
def test_odd_inputs_are_read_or_refused(kind: str, count: int) -> None:
    (found,) = run("tools/fuzz.py", "--count", str(count), "--seed", "1", "--kind", kind)
    assert found["named"] == {}
    assert found["read"] + found["refused"] == found["inputs"] == count
    assert found["read"] > count / 50 and found["refused"] > count / 50, "some of both, or nothing is tried"


def test_the_fuzzer_notices() -> None:
    (found,) = run("-c", BAD)
    named = " ".join(found["named"])
    for fault in (
        "KeyError",
        "more than 1 s",
        "write to",
        "subprocess.Popen",
        "socket.getaddrinfo",
        "code of",
    ):
        assert fault in named, named
