"""Results on stdout as they are; messages on stderr, each on one line, from rank 0 alone below WARNING."""

from __future__ import annotations

import logging

import pytest
from rich.table import Table

from fcot_vl.common.console import set_up_logging, show
from fcot_vl.common.progress import progress_bar

LONG = "[1/2] run: " + "/a/very/long/path" * 20
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def logger(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """A logger of the package, whose settings are taken back."""
    top = logging.getLogger("fcot_vl")
    monkeypatch.setattr(top, "handlers", top.handlers)
    monkeypatch.setattr(top, "level", top.level)
    return logging.getLogger("fcot_vl.data.mixture")


def test_a_message_is_one_line_on_stderr(logger: logging.Logger, capsys: Captured) -> None:
    set_up_logging()
    set_up_logging()  # once more adds nothing
    logger.info(LONG)
    logger.warning("%s is old", "x")
    logger.debug("left out")
    printed = capsys.readouterr()
    assert printed.err == f"{LONG}\nwarning: x is old\n" and not printed.out


@pytest.mark.parametrize(("rank", "said"), [("0", "info\nwarning: late\n"), ("3", "warning: late\n")])
def test_other_ranks_log_warnings_only(
    rank: str, said: str, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("RANK", rank)
    set_up_logging()
    logger.info("info")
    logger.warning("late")
    assert capsys.readouterr().err == said


def test_results_are_written_as_they_are(capsys: Captured) -> None:
    answer = f"{LONG}\tand [red] and :smile:"
    table = Table("a" * 60, "b" * 60)
    show(table, answer)
    printed = capsys.readouterr()
    assert printed.out.endswith(f"\n{answer}\n") and "a" * 60 in printed.out and "b" * 60 in printed.out
    assert not printed.err


def test_a_progress_bar_is_not_on_stdout(capsys: Captured) -> None:
    with progress_bar() as progress:
        progress.advance(progress.add_task("pages", total=1))
    printed = capsys.readouterr()
    assert not printed.out and "pages" in printed.err


def test_nothing_is_logged_before_it_is_set_up(logger: logging.Logger, capsys: Captured) -> None:
    logger.info("quiet")
    assert capsys.readouterr() == ("", "")
