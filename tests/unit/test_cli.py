"""What the command line makes of errors: one red line and exit code 2 for what a person can mend, the rest as it is."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import torch

from fcot_vl import cli


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
