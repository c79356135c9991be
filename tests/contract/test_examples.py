"""The scripts in examples/ run with tiny random models."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from teacher_case import picture

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """An image of two tiles and a thumbnail: 3 x 16 visual tokens of the teacher."""
    path = tmp_path / "page.png"
    picture(224, 112).save(path)
    return path


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a script with arguments and return what it prints."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_ask_a_student(run_example: Callable[..., str], student_folder: Path, page: Path) -> None:
    said = run_example("ask_a_student.py", student_folder, page, "What is the total?")
    assert said.startswith("answer: ") and said.endswith("visual tokens: 12\n")


def test_compare_baselines(run_example: Callable[..., str], teacher_folder: Path, page: Path) -> None:
    lines = run_example("compare_baselines.py", teacher_folder, page, "What is the total?").splitlines()
    starts = ["none, 48 of 48", "fastv, 24 of 48", "divprune, 24 of 48"]
    assert len(lines) >= 3
    for start in starts:
        assert any(line.startswith(f"{start} visual tokens: ") for line in lines), start


def test_evaluate_own_samples(
    run_example: Callable[..., str], student_folder: Path, page: Path, tmp_path: Path
) -> None:
    table = tmp_path / "questions.csv"
    table.write_text('image,question,answer\npage.png,"What is the total?",12\npage.png,Which year?,2026\n')
    said = run_example("evaluate_own_samples.py", student_folder, table, tmp_path / "out")
    assert "ANLS: " in said and said.endswith("visual tokens per question: 12.0\n")
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert {row["question"] for row in rows} == {"What is the total?", "Which year?"}


def test_examples_are_short_and_named_in_the_readme() -> None:
    assert "(examples/)" in (EXAMPLES.parent / "README.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 40, path.name
