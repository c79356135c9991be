"""The resample stage on a tiny teacher: its own coarse run, a finished one, and what is written."""

from __future__ import annotations

import json
import shutil

import pytest
from training_case import post_train_config, write_pages

from fcot_vl.common.stage import StageError, read_stage
from fcot_vl.data.dataset import SampleFolder, write_shard
from fcot_vl.data.sources.open_data import open_data
from fcot_vl.stages.resample import ResampleConfig, resample


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pages of two tasks."""
    folder = tmp_path_factory.mktemp("resample") / "data"
    write_pages(folder)
    samples = list(SampleFolder(folder))
    for sample in samples:
        sample.task = "odd" if int(sample.id[-1]) % 2 else "even"
    (folder / "b.parquet").unlink()
    write_shard(folder / "a.parquet", samples)
    return folder


def test_a_coarse_run_becomes_weights_and_a_mixture(tmp_path, teacher_folder, data):
    output = tmp_path / "out"
    config = ResampleConfig(output, data, model=teacher_folder, records=6)
    resample(config, post_train_config(output / "coarse", max_steps=3))
    assert len(open_data(output / "coarse.yaml")) == 6
    found = json.loads((output / "weights.json").read_text())["groups"]
    assert set(found) == {"even", "odd"} and all(0.25 <= group["weight"] <= 4 for group in found.values())
    mixture = open_data(output / "mixture.yaml")
    assert mixture.names == ["even", "odd"] and {mixture[0].task} == {"even"}
    text = (output / "mixture.yaml").read_text()
    assert "of the median" in text and (output / "weights.png").stat().st_size > 5000
    assert read_stage(output)["status"] == "done"
    before = (output / "mixture.yaml").stat().st_mtime_ns
    resample(config, post_train_config(output / "coarse", max_steps=3))  # recognized
    assert (output / "mixture.yaml").stat().st_mtime_ns == before
    with pytest.raises(StageError, match="cap"):
        resample(
            ResampleConfig(output, data, model=teacher_folder, records=6, cap=2),
            post_train_config(output / "coarse", max_steps=3),
        )

    # A run that was made before, its log alone: as after an interruption.
    log = tmp_path / "run"
    log.mkdir()
    shutil.copy(output / "coarse" / "losses.jsonl", log)
    resample(ResampleConfig(tmp_path / "second", data, losses=log, generation=("odd",)))
    second = json.loads((tmp_path / "second" / "weights.json").read_text())["groups"]
    assert second["odd"]["generation"] and second["odd"]["weight"] <= 1
    assert second["even"]["loss"] == found["even"]["loss"]


def test_what_does_not_fit_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match="either --losses"):
        ResampleConfig(tmp_path, data)
    with pytest.raises(ValueError, match="floor"):
        ResampleConfig(tmp_path, data, losses=tmp_path, floor=2)
    with pytest.raises(ValueError, match=r"no losses\.jsonl found"):
        resample(ResampleConfig(tmp_path / "out", data, losses=tmp_path))
    (tmp_path / "losses.jsonl").write_text('{"groups": {"other": {"ce": 1.0, "tokens": 3}}}\n')
    with pytest.raises(ValueError, match=r"no loss of the group 'even'; the run has other"):
        resample(ResampleConfig(tmp_path / "out", data, losses=tmp_path))
