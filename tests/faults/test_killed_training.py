"""Training killed with SIGKILL, and checkpoints damaged: the weights that come out are those of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from training_case import assert_same_weights, post_train_config, realign_config, weights, write_pages

from fcot_vl.common.hashing import hash_file
from fcot_vl.models import FCoTVLForConditionalGeneration, FCoTVLProcessor
from fcot_vl.stages.post_train import post_train
from fcot_vl.stages.realign import realign
from fcot_vl.train.checkpointing import checkpoint_problem
from fcot_vl.train.metrics import LossLog

TESTS = Path(__file__).parents[1]

# Runs a stage and kills itself: after an optimizer step, or in the middle of writing a checkpoint.
KILLED = """
import os, signal, sys
from pathlib import Path
from training_case import post_train_config, realign_config
from fcot_vl.stages.post_train import post_train
from fcot_vl.stages.realign import realign
from fcot_vl.train.metrics import LossLog
from fcot_vl.train.trainer import StageTrainer

stage, output, model, data, where, step = sys.argv[1:]

def kill(trainer_or_state):
    state = getattr(trainer_or_state, "state", trainer_or_state)
    if state.global_step == int(step):
        os.kill(os.getpid(), signal.SIGKILL)

if where == "step":
    inner = LossLog.on_step_end
    def on_step_end(self, args, state, control, **kwargs):
        inner(self, args, state, control, **kwargs)
        kill(state)
    LossLog.on_step_end = on_step_end
else:
    StageTrainer._save_rng_state = lambda self, folder: kill(self)

run, config = {"realign": (realign, realign_config), "post-train": (post_train, post_train_config)}[stage]
run(config(Path(output)), model, data)
"""


def run_and_kill(stage: str, output: Path, model: Path, data: Path, where: str, step: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS / "helpers"), str(TESTS.parent)])}
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, stage, output, model, data, where, str(step)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr[-2000:]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pages(tmp_path_factory.mktemp("faults") / "data")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, teacher_folder, data):
    return realign(realign_config(tmp_path_factory.mktemp("undisturbed")), teacher_folder, data)


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make training stop as by Ctrl-C after a step."""
    inner = LossLog.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        inner(self, args, state, control, **kwargs)
        if state.global_step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(LossLog, "on_step_end", on_step_end)


def steps_logged(folder: Path) -> list[int]:
    return [row["step"] for row in LossLog(folder / "losses.jsonl").rows()]


def test_realign_killed_twice_gives_the_same_weights(tmp_path, undisturbed, teacher_folder, data, log):
    """Killed in the second epoch between two checkpoints, then again while the next checkpoint is written."""
    output = tmp_path / "out"
    run_and_kill("realign", output, teacher_folder, data, "step", 5)
    assert steps_logged(output) == [1, 2, 3, 4, 5] and (output / "checkpoint-4").exists()
    run_and_kill("realign", output, teacher_folder, data, "checkpoint", 6)
    assert (output / "checkpoint-6" / "model.safetensors").exists()
    realign(realign_config(output), teacher_folder, data)
    printed = log()
    assert "checkpoint-6: was not written to its end" in printed and "resuming from checkpoint-4" in printed
    assert steps_logged(output) == [1, 2, 3, 4, 5, 6]
    for ratio in (2, 4):
        assert_same_weights(undisturbed / f"ratio-{ratio}", output / f"ratio-{ratio}")


def test_post_train_killed_gives_the_same_weights(tmp_path, teacher_folder, data):
    student = tmp_path / "student"
    FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2).save_pretrained(student)
    FCoTVLProcessor.from_pretrained(teacher_folder, image_seq_length=8).save_pretrained(student)
    run_and_kill("post-train", tmp_path / "killed", student, data, "step", 5)
    killed = post_train(post_train_config(tmp_path / "killed"), student, data)
    assert_same_weights(post_train(post_train_config(tmp_path / "whole"), student, data), killed)


def test_an_interrupted_run_with_muon_gives_the_same_weights(tmp_path, teacher_folder, data):
    config = {"muon_lr": 0.02, "ratios": [2], "max_steps": 5}
    with pytest.MonkeyPatch.context() as patch:
        stop_at(3, patch)
        with pytest.raises(KeyboardInterrupt):
            realign(realign_config(tmp_path / "stopped", **config), teacher_folder, data)
    stopped = realign(realign_config(tmp_path / "stopped", **config), teacher_folder, data)
    whole = realign(realign_config(tmp_path / "whole", **config), teacher_folder, data)
    assert_same_weights(whole / "ratio-2", stopped / "ratio-2")
    adamw = realign(realign_config(tmp_path / "adamw", **{**config, "muon_lr": None}), teacher_folder, data)
    assert weights(whole / "ratio-2").keys() == weights(adamw / "ratio-2").keys()
    with pytest.raises(AssertionError, match="tensors differ"):
        assert_same_weights(whole / "ratio-2", adamw / "ratio-2")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_file_is_found(tmp_path, damage):
    checkpoint = tmp_path / "checkpoint-4"
    checkpoint.mkdir()
    path = checkpoint / "optimizer.pt"
    path.write_bytes(bytes(range(100)))
    (checkpoint / "files.json").write_text(json.dumps({"optimizer.pt": hash_file(path)}))
    assert checkpoint_problem(checkpoint) is None
    match damage:
        case "truncated":
            path.write_bytes(bytes(range(99)))
        case "flipped":
            path.write_bytes(bytes([1, *range(1, 100)]))
        case "missing":
            path.unlink()
    found = "optimizer.pt is missing" if damage == "missing" else "optimizer.pt is damaged"
    assert checkpoint_problem(checkpoint) == found


@pytest.mark.parametrize("before", ["whole", "damaged"])
def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    tmp_path, undisturbed, teacher_folder, data, before, log
):
    output = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(5, patch)
        with pytest.raises(KeyboardInterrupt):
            realign(realign_config(output), teacher_folder, data)
    path = output / "checkpoint-4" / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:1000])
    if before == "damaged":
        (output / "checkpoint-2" / "files.json").write_text("{")
    realign(realign_config(output), teacher_folder, data)
    printed = log()
    assert "checkpoint-4: optimizer.pt is damaged" in printed
    assert ("resuming from checkpoint-2" in printed) == (before == "whole")
    for ratio in (2, 4):
        assert_same_weights(undisturbed / f"ratio-{ratio}", output / f"ratio-{ratio}")


def test_interrupted_while_the_students_are_saved(tmp_path, undisturbed, teacher_folder, data):
    output = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        inner = FCoTVLProcessor.save_pretrained

        def save_pretrained(self, folder, *args, **kwargs):
            if self.image_seq_length == 4:  # the second student's
                raise KeyboardInterrupt
            return inner(self, folder, *args, **kwargs)

        patch.setattr(FCoTVLProcessor, "save_pretrained", save_pretrained)
        with pytest.raises(KeyboardInterrupt):
            realign(realign_config(output), teacher_folder, data)
    assert not (output / "ratio-4").exists()
    realign(realign_config(output), teacher_folder, data)
    assert {path.name for path in output.iterdir()} == {"ratio-2", "ratio-4", "losses.jsonl", "stage.json"}
    for ratio in (2, 4):
        assert_same_weights(undisturbed / f"ratio-{ratio}", output / f"ratio-{ratio}")


def test_a_killed_feature_pass_goes_on_and_ends_the_same(tmp_path, teacher_folder, data, monkeypatch):
    import fcot_vl.train.feature_cache as features

    monkeypatch.setattr(features, "SHARD", 3)
    config = {"cache_features": True, "max_steps": 1, "ratios": [2]}
    whole = realign(realign_config(tmp_path / "whole", **config), teacher_folder, data)
    inner, pages = features._features, []

    def stop_in_the_third_shard(sample, *rest):
        if len(pages) == 7:
            raise KeyboardInterrupt
        pages.append(sample.id)
        return inner(sample, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(features, "_features", stop_in_the_third_shard)
        with pytest.raises(KeyboardInterrupt):
            realign(realign_config(tmp_path / "stopped", **config), teacher_folder, data)
    again = []
    monkeypatch.setattr(
        features, "_features", lambda sample, *rest: again.append(sample.id) or inner(sample, *rest)
    )
    stopped = realign(realign_config(tmp_path / "stopped", **config), teacher_folder, data)
    assert again == ["page-6", "page-7", "page-8", "page-9"], "finished shards are not computed again"
    assert_same_weights(whole / "ratio-2", stopped / "ratio-2")
