"""What the command line makes of errors: one red line and exit code 2 for what a person can mend, the rest as it is."""

from __future__ import annotations

import errno
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fcot_vl.cli import app as cli
from fcot_vl.cli.settings import read_settings
from fcot_vl.stages.post_train import PostTrainConfig


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
