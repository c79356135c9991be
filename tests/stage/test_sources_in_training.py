"""Training from other people's files: what is broken is skipped, named, and does not end the run."""

from __future__ import annotations

import json

import pytest
import torch
from source_files import cut_short, picture, record, write_lines
from training_case import post_train_config, realign_config, weights, write_pages

from fcot_vl.stages.post_train import post_train
from fcot_vl.stages.realign import realign


@pytest.fixture
def mixture(tmp_path):
    """Ten whole pages, and one of each kind that is not."""
    folder = tmp_path / "data"
    write_pages(folder / "pages")
    picture(folder / "a.png")
    cut_short(folder / "cut.png")
    (folder / "bytes.png").write_bytes(b"no picture")
    records = [
        record("whole", "a.png", "<image>\nRead.", "abc"),
        record("text", None, "Say abc.", "abc"),
        record("missing", "none.png", "<image>\nRead.", "abc"),
        record("bytes", "bytes.png", "<image>\nRead.", "abc"),
        record("marks", "a.png", "<image><image>\nRead.", "abc"),
        record("long", "a.png", "<image>\nRead.", "abc" * 500),
        record("cut", "cut.png", "<image>\nRead.", "abc"),
    ]
    write_lines(folder / "own.jsonl", records)
    (folder / "mix.yaml").write_text(
        "sources: [{name: pages, folder: pages}, {name: own, llava: own.jsonl, weight: 1.0}]\n"
    )
    return folder / "mix.yaml"


def skipped(folder):
    rows = [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]
    assert all(row["source"] == "own" and row["reason"] for row in rows)
    return {row["id"]: row["kind"] for row in rows}


BROKEN = {
    "missing": "missing file",
    "bytes": "broken image",
    "marks": "malformed conversation",
    "long": "too long",
}


@pytest.mark.parametrize("cached", [False, True])
def test_realign_names_what_it_skips_and_goes_on(tmp_path, teacher_folder, mixture, cached, log):
    config = {"ratios": [2], "max_skipped": 0.5, "max_length": 1000, "num_train_epochs": 1}
    config |= {"cache_features": cached}
    output = realign(realign_config(tmp_path / "out", **config), teacher_folder, mixture)
    assert skipped(output) == {**BROKEN, "text": "without an image", "cut": "broken pixels"}
    record = json.loads((output / "stage.json").read_text())
    assert record["figures"]["pages"] == 12 and record["figures"]["left_out"] == 5
    assert "12 pages (skipped: " in log()
    assert all(torch.isfinite(tensor).all() for tensor in weights(output / "ratio-2").values())


def test_post_train_keeps_pages_of_text_alone(tmp_path, teacher_folder, mixture):
    config = {"max_skipped": 0.5, "max_length": 1000, "max_steps": 4}
    output = post_train(post_train_config(tmp_path / "out", **config), teacher_folder, mixture)
    assert skipped(output) == {**BROKEN, "cut": "broken pixels"}


def test_too_many_stop_the_run_with_the_reason_and_it_resumes_with_more_allowed(
    tmp_path, teacher_folder, mixture
):
    config = {"ratios": [2], "max_length": 1000, "max_steps": 1}
    with pytest.raises(ValueError, match=r"more than max_skipped 0\.01 allows: 1 without an image") as caught:
        realign(realign_config(tmp_path / "out", **config), teacher_folder, mixture)
    assert "\n" not in str(caught.value) and str(tmp_path / "out" / "skipped.jsonl") in str(caught.value)
    mixture.write_text(mixture.read_text() + "max_skipped: 0.4\n")
    realign(realign_config(tmp_path / "out", **config), teacher_folder, mixture)
    with pytest.raises(ValueError, match=r"max_skipped 0 "):
        realign(realign_config(tmp_path / "other", **config, max_skipped=0), teacher_folder, mixture)


def test_a_step_of_broken_pixels_alone_changes_nothing(tmp_path, teacher_folder):
    """No answer token in the whole batch: the loss is 0, not 0 divided by 0."""
    cut_short(tmp_path / "cut.png")
    picture(tmp_path / "a.png")
    records = [record(name, name + ".png", "<image>\nRead.", "abc") for name in ("cut", "a")]
    data = write_lines(tmp_path / "own.jsonl", records)
    config = {"ratios": [2], "per_device_train_batch_size": 1, "num_train_epochs": 2}
    once = realign(realign_config(tmp_path / "both", **config), teacher_folder, data)
    assert all(torch.isfinite(tensor).all() for tensor in weights(once / "ratio-2").values())
    rows = [json.loads(line) for line in (once / "losses.jsonl").read_text().splitlines()]
    assert sum(row["ratio-2/ce"] == 0 for row in rows) == 2
    assert len((once / "skipped.jsonl").read_text().splitlines()) == 1
