"""Ten kills at random moments, and a disk that is full: the weights are those of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from training_case import assert_same_weights, realign_config, write_pages

from fcot_vl.stages.realign import realign

TESTS = Path(__file__).parents[1]
KILLS = 10
LONG = {"packing": True, "max_length": 155, "per_device_train_batch_size": 1, "num_train_epochs": 8}

# One process imports; its children train and kill themselves, each at a moment drawn from the seed: after a step, while
# a checkpoint is written, or while the loss log is.
KILLED = """
import json, os, random, signal, sys
from pathlib import Path
from training_case import realign_config
from fcot_vl.train import checkpointing, trainer
from fcot_vl.stages.realign import realign

output, model, data, kills, settings = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]

def steps_saved():
    whole = [p for p in output.glob("checkpoint-*") if (p / "files.json").exists()]
    return max(map(step_of, whole), default=0)

def step_of(checkpoint):
    return int(checkpoint.name.split("-")[1])

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def train_until(step, where):
    log_step = trainer.LossLog.on_step_end
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= step and where == "before the log":
            die()
        log_step(self, args, state, control, **kwargs)
        if state.global_step >= step and where == "step":
            die()
    trainer.LossLog.on_step_end = on_step_end
    if where == "weights":
        save = checkpointing.save_file
        def save_file(weights, path, **kwargs):
            if step_of(path.parent) >= step:
                path.write_bytes(b"half")
                die()
            save(weights, path, **kwargs)
        checkpointing.save_file = save_file
    if where == "seal":
        write = checkpointing.write_json
        def write_json(path, value):
            if path.name == "files.json" and step_of(path.parent) >= step:
                die()
            write(path, value)
        checkpointing.write_json = write_json
    realign(realign_config(output, **json.loads(settings)), model, data)

rng = random.Random(0)
for kill in range(kills):
    step = steps_saved() + rng.randint(1, 4)
    where = rng.choice(["step", "before the log", "weights", "seal"])
    child = os.fork()
    if child == 0:
        train_until(step, where)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    print(json.dumps({"step": step, "where": where, "signal": killed}), flush=True)
"""

FULL_DISK = """
import resource, sys
from pathlib import Path
from training_case import realign_config
from fcot_vl.train import trainer
from fcot_vl.stages.realign import realign

save = trainer.StageTrainer._save_checkpoint
def save_checkpoint(self, *args):
    if self.state.global_step == 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
    save(self, *args)
trainer.StageTrainer._save_checkpoint = save_checkpoint
try:
    realign(realign_config(Path(sys.argv[1])), sys.argv[2], sys.argv[3])
except ValueError as error:
    print("STOPPED", error)
"""


def python(script: str, *arguments: object) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS / "helpers"), str(TESTS.parent)])}
    ran = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pages(tmp_path_factory.mktemp("again") / "data")


def test_ten_kills_at_random_moments(tmp_path, teacher_folder, data):
    printed = python(KILLED, tmp_path / "killed", teacher_folder, data, KILLS, json.dumps(LONG))
    kills = [json.loads(line) for line in printed.splitlines() if line.startswith('{"step"')]
    assert [kill["signal"] for kill in kills] == [signal.SIGKILL] * KILLS
    assert len({kill["where"] for kill in kills}) == 4
    killed = realign(realign_config(tmp_path / "killed", **LONG), teacher_folder, data)
    whole = realign(realign_config(tmp_path / "whole", **LONG), teacher_folder, data)
    for ratio in (2, 4):
        assert_same_weights(whole / f"ratio-{ratio}", killed / f"ratio-{ratio}")
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if k.startswith(("step", "ratio"))}
            for line in text.splitlines()
        ]
        for text in ((folder / "losses.jsonl").read_text() for folder in (whole, killed))
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 40


@pytest.mark.parametrize("room", [100_000, 700_000], ids=["weights", "optimizer"])
def test_a_full_disk_stops_with_the_reason_and_keeps_the_checkpoint_before(
    tmp_path, teacher_folder, data, room
):
    """Files may grow to `room` bytes only: the weights, or the optimizer's state, do not fit."""
    folder = tmp_path / "out"
    printed = python(FULL_DISK, folder, teacher_folder, data, room)
    assert "STOPPED" in printed and "Is the disk full?" in printed and "checkpoint-4" in printed
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-2"]
    realign(realign_config(folder), teacher_folder, data)
    whole = realign(realign_config(tmp_path / "whole"), teacher_folder, data)
    for ratio in (2, 4):
        assert_same_weights(whole / f"ratio-{ratio}", folder / f"ratio-{ratio}")
