"""Session-wide fixtures (tiny random teachers, a scripted server), markers, and guards of the suite."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from expected_skips import is_expected
from global_state import changes, global_state
from scripted_server import serve as serve
from teacher_case import build_teacher, teacher_config

import fcot_vl

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whole folders, and skip what needs a GPU where there is none."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in ("stage", "faults"):
            item.add_marker("slow")
        if folder == "faults":
            item.add_marker("faults")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


_skips: Counter[str] = Counter()


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        _skips[report.longrepr[2].removeprefix("Skipped: ")] += 1


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note_skip(report)


def _unexpected_skips() -> list[str]:
    return [why for why in _skips if not is_expected(why)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _unexpected_skips() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for why in _unexpected_skips():
        terminalreporter.write_line(
            f"ERROR unexpected skip (tests/helpers/expected_skips.py): {why}", red=True
        )


_state = {"last": global_state()}  # as the last test left it, or its module's fixtures behind it


@pytest.fixture(autouse=True)
def _process_state() -> Iterator[None]:
    """Fail a test that leaves the process's state changed: it, or a fixture that was set up or torn down for it."""
    yield
    before, _state["last"] = _state["last"], global_state()
    assert not (found := changes(before, _state["last"])), "\n".join(["global state changed:", *found])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Returns the messages that the package has logged in this test, from INFO up."""
    caplog.set_level(logging.INFO, logger="fcot_vl")
    return lambda: "\n".join(caplog.messages)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random InternVL teacher with a Qwen2 decoder, in the Hugging Face layout."""
    return build_teacher(tmp_path_factory.mktemp("teacher-qwen2"), teacher_config("qwen2"))


@pytest.fixture(scope="session")
def llama_teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a Llama decoder, tied embeddings and another seed."""
    config = teacher_config("llama", tie_word_embeddings=True)
    config.text_config.tie_word_embeddings = True
    return build_teacher(tmp_path_factory.mktemp("teacher-llama"), config, seed=1)


@pytest.fixture(scope="session")
def make_student(teacher_folder: Path) -> Callable[..., fcot_vl.FCoTVLForConditionalGeneration]:
    """Students of the tiny teacher in float32, by ratio, compressor, positions; compressors off their start."""

    def make(
        ratio: int, compressor: str = "conv", visual_positions: str = "compact"
    ) -> fcot_vl.FCoTVLForConditionalGeneration:
        torch.manual_seed(ratio)
        student = fcot_vl.FCoTVLForConditionalGeneration.from_teacher(
            teacher_folder, ratio, compressor, visual_positions, dtype=torch.float32
        )
        with torch.no_grad():
            for parameter in student.model.multi_modal_projector.compressor.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return student.eval()

    return make


@pytest.fixture(scope="session")
def processor_for(
    teacher_folder: Path,
) -> Callable[[fcot_vl.FCoTVLForConditionalGeneration], fcot_vl.FCoTVLProcessor]:
    """The processor that fits a student."""

    def load(student: fcot_vl.FCoTVLForConditionalGeneration) -> fcot_vl.FCoTVLProcessor:
        return fcot_vl.FCoTVLProcessor.from_pretrained(
            teacher_folder, image_seq_length=student.config.image_seq_length
        )

    return load


@pytest.fixture(scope="module")
def student_folder(
    make_student: Callable[..., fcot_vl.FCoTVLForConditionalGeneration],
    processor_for: Callable[..., fcot_vl.FCoTVLProcessor],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Folder of a random student at compress ratio 4, with its processor."""
    folder = tmp_path_factory.mktemp("student")
    student = make_student(4)
    student.save_pretrained(folder)
    processor_for(student).save_pretrained(folder)
    return folder
