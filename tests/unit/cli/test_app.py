"""What the command line makes of errors: one red line and exit code 2 for what a person can mend, the rest as it is."""

from __future__ import annotations

import errno
import logging
import runpy
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments
from typer.testing import CliRunner

from fcot_vl.cli import app as cli
from fcot_vl.cli.settings import own_settings, read_settings
from fcot_vl.stages.post_train import PostTrainConfig


@pytest.fixture(autouse=True)
def _logger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what `main` sets up."""
    logger = logging.getLogger("fcot_vl")
    monkeypatch.setattr(logger, "handlers", logger.handlers)
    monkeypatch.setattr(logger, "level", logger.level)


def raising(error: BaseException) -> Any:
    def app() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ValueError("keep is\na share"), 2, "keep is a share"),
        (torch.OutOfMemoryError("tried to allocate 2 GiB"), 2, "no memory left on the device"),
        (OSError(errno.ENOSPC, "No space left on device", "run/x"), 2, "no space left on the disk for run/x"),
        (KeyboardInterrupt(), 130, "rerun the same command to resume"),
    ],
)
def test_what_a_person_can_mend_is_one_line(
    error: BaseException,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "app", raising(error))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().err
    assert ended.value.code == code and says in printed and printed.count("\n") == 1


def test_an_error_of_ours_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", raising(RuntimeError("a shape does not fit")))
    with pytest.raises(RuntimeError, match="a shape does not fit"):
        cli.main()


def test_a_finished_command_leaves_its_process_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # torch puts in one of its own
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    monkeypatch.setattr(cli, "app", raising(SystemExit(0)))
    with pytest.raises(SystemExit):
        cli.main()
    assert not torch.distributed.is_initialized()


def help_of(command: str) -> str:
    ran = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200"})
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_help_lists_the_settings_of_a_training_command() -> None:
    listed = help_of("realign")
    assert "--ratios <int,...>: Compress ratios of the students" in listed and "[default: 2,4]" in listed
    assert "--packing / --no-packing: " in listed and "[default: packing]" in listed
    assert "--learning-rate <float>: Peak learning rate.  [default: 4e-05]" in listed
    assert "--adam-beta1" not in listed and "TrainingArguments" in listed
    assert "--ratios" not in help_of("post-train") and "--lora-rank <int>" in help_of("post-train")
    assert "post-train --help" in help_of("resample")


def test_own_settings_are_those_that_our_classes_declare() -> None:
    names = [setting.name for setting in own_settings(PostTrainConfig)]
    assert len(names) == len(set(names)) and "adam_beta1" not in names
    inherited = {setting.name: setting.default for setting in fields(TrainingArguments)}
    changed = {
        setting.name
        for setting in fields(PostTrainConfig)
        if setting.name not in inherited or setting.default != inherited[setting.name]
    }
    assert set(names) - changed == {"num_train_epochs"}, (
        "declared, since the paper's is transformers' default"
    )
    assert changed <= set(names)


def test_settings_come_from_flags_over_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("post_train: {max_steps: 7, freeze_vision: true, use_cpu: true}")
    flags = ["--no-freeze-vision", "--learning-rate", "1e-3"]
    config = read_settings(PostTrainConfig, "post_train", str(recipe), flags, tmp_path / "out")
    assert (config.max_steps, config.freeze_vision, config.learning_rate) == (7, False, 1e-3)
    assert config.output_dir == str(tmp_path / "out")
    with pytest.raises(ValueError, match="did you mean learning_rate"):
        read_settings(PostTrainConfig, "post_train", None, ["--learning-rat", "1"], tmp_path)


def test_the_package_runs_as_a_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer puts in one of its own
    monkeypatch.setattr(sys, "argv", ["fcot-vl", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("fcot_vl", run_name="__main__")
    assert ended.value.code == 0 and "post-train" in capsys.readouterr().out
