"""Settings that cannot work, and those that a machine with several GPUs would change."""

from __future__ import annotations

import json

import pytest
from training_case import post_train_config, realign_config, write_pages

from fcot_vl.stages.post_train import post_train


@pytest.mark.parametrize("make", [realign_config, post_train_config])
def test_fp16_is_refused_with_the_reason(tmp_path, make, monkeypatch):
    with pytest.raises(ValueError, match=r"fp16 cannot be used: .* use bf16"):
        make(tmp_path, fp16=True)
    monkeypatch.setenv(
        "ACCELERATE_MIXED_PRECISION", "fp16"
    )  # as `accelerate launch --mixed_precision fp16` does
    with pytest.raises(ValueError, match="fp16 cannot be used"):
        make(tmp_path)
    assert make(tmp_path, bf16=True).mixed_precision == "bf16"


def test_one_process_uses_one_of_several_gpus(tmp_path, teacher_folder, log):
    """transformers would wrap the model in DataParallel and multiply the batch by the number of GPUs."""
    data = write_pages(tmp_path / "data")
    config = post_train_config(tmp_path / "out", max_steps=1)
    assert config.device.type == "cpu"
    config._n_gpu = 4  # as transformers finds four GPUs
    assert config.n_gpu == 1 and config.train_batch_size == 4
    post_train(config, teacher_folder, data)
    assert json.loads((tmp_path / "out" / "stage.json").read_text())["settings"]["items_per_step"] == 4
    assert "1 of 4 GPUs; to use all, start it with torchrun --nproc-per-node 4" in log()
