"""Curves along a post-training: every kept checkpoint scored, losses and scores of each task side by side."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from training_case import post_train_config, write_pages

from fcot_vl.common.hashing import former_model_hash
from fcot_vl.models import FCoTVLForConditionalGeneration, FCoTVLProcessor
from fcot_vl.stages import curves as module
from fcot_vl.stages.curves import curves, group_losses, see_saw, smoothed
from fcot_vl.stages.evaluate import evaluate
from fcot_vl.stages.post_train import post_train


@pytest.fixture(scope="module")
def run(tmp_path_factory, teacher_folder):
    folder = tmp_path_factory.mktemp("curves")
    data = write_pages(folder / "data", 4)
    FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2).save_pretrained(folder / "student")
    FCoTVLProcessor.from_pretrained(teacher_folder, image_seq_length=8).save_pretrained(folder / "student")
    config = post_train_config(folder / "trained", max_steps=2, keep_checkpoints=2)
    return post_train(config, folder / "student", data), data


def test_every_checkpoint_is_scored_and_drawn(run, tmp_path, monkeypatch):
    trained, data = run
    output = curves(trained, data, tmp_path / "out")
    content = json.loads((output / "curves.json").read_text())
    assert content["steps"] == [1, 2] and content["scores"].keys() == {"transcribe"}
    last = evaluate(trained, data, tmp_path / "last", stage="post-train")
    assert content["mean_over_tasks"][1] == last["mean_over_tasks"]
    rows = [json.loads(line) for line in (trained / "losses.jsonl").read_text().splitlines()]
    assert content["losses"]["transcribe"]["ce"] == [row["groups"]["transcribe"]["ce"] for row in rows]
    assert np.asarray(Image.open(output / "curves.png").convert("L")).std() > 5
    monkeypatch.setattr(module, "evaluate", None)  # finished: nothing is scored again
    assert curves(trained, data, tmp_path / "out") == output
    # So is one, with the evaluations in it, that recorded the former hashes of its models.
    for record_file in sorted(output.rglob("stage.json")):
        record = json.loads(record_file.read_text())
        for name in record["inputs"].keys() - {"data"}:
            step = record_file.parent.name if name == "weights" else name
            record["inputs"][name] = former_model_hash(trained / "checkpoints" / step)
        record_file.write_text(json.dumps(record))
    records = {path: path.read_bytes() for path in output.rglob("stage.json")}
    curves(trained, data, output)
    for step in ("step-000001", "step-000002"):
        checkpoint, seed = trained / "checkpoints" / step, record["seed"]
        evaluate(checkpoint, data, output / step, stage="post-train", seed=seed, batch_size=64)
    assert {path: path.read_bytes() for path in records} == records


def test_a_run_without_checkpoints_is_refused(run, tmp_path):
    trained, data = run
    record = json.loads((trained / "stage.json").read_text()) | {"status": "running"}
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "stage.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="not a finished post-train run"):
        curves(tmp_path / "unfinished", data, tmp_path / "out")
    config = post_train_config(tmp_path / "plain", max_steps=1)
    plain = post_train(config, trained.parent / "student", data)
    with pytest.raises(ValueError, match="--keep-checkpoints"):
        curves(plain, data, tmp_path / "out")


def test_the_see_saw_is_the_deepest_fall():
    assert see_saw([0.1, 0.5, 0.4, 0.6, 0.2]) == pytest.approx(0.4)
    assert see_saw([0.1, 0.2]) == 0


def test_losses_are_averaged_by_their_tokens():
    losses = {"step": [1, 2, 3], "ce": [1.0, 3.0, 5.0], "tokens": [3, 1, 7]}
    assert smoothed(losses, 2) == ([1.5, 3.0], [1.5, 5.0])


def test_rows_without_groups_are_passed_over(tmp_path):
    (tmp_path / "losses.jsonl").write_text(
        '{"step": 1}\n{"step": 2, "groups": {"a": {"ce": 1.0, "tokens": 2}}}\n'
    )
    assert group_losses(tmp_path / "losses.jsonl") == {"a": {"step": [2], "ce": [1.0], "tokens": [2]}}
