"""Asking a picture: any picture that opens gets an answer and says which model gave it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from teacher_case import picture

from fcot_vl.data.images import ImageError
from fcot_vl.stages.ask import EMBEDDED_NOTICE, ask


def saved(tmp_path: Path, width: int, height: int) -> Path:
    path = tmp_path / "page.png"
    picture(width, height).save(path)
    return path


def test_teacher_and_student_say_who_they_are(
    teacher_folder: Path, student_folder: Path, tmp_path: Path
) -> None:
    path = saved(tmp_path, 112, 112)
    teacher = ask(path, "What is the total?", teacher_folder, max_new_tokens=5)
    student = ask(path, "What is the total?", student_folder, max_new_tokens=5)
    assert (teacher.kind, teacher.compress_ratio, teacher.tiles, teacher.visual_tokens) == (
        "teacher",
        1,
        1,
        16,
    )
    assert (student.kind, student.compress_ratio, student.tiles, student.visual_tokens) == (
        "student",
        4,
        1,
        4,
    )
    assert teacher.new_tokens <= 5
    assert str(teacher_folder) in teacher.answered_by
    assert "student" in student.answered_by
    assert "compress ratio 4" in student.answered_by
    assert teacher.notice is None
    assert ask(path, "What is the total?", teacher_folder, max_new_tokens=5).text == teacher.text


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (40, 2000)])
def test_any_shape_is_answered(teacher_folder: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    answer = ask(saved(tmp_path, *size), "What?", teacher_folder, max_new_tokens=2)
    assert answer.visual_tokens == 16 * answer.tiles


def test_letters_the_tokenizer_does_not_know(teacher_folder: Path, tmp_path: Path) -> None:
    assert (
        ask(saved(tmp_path, 50, 50), "Wie heißt 总额 🙂?", teacher_folder, max_new_tokens=2).new_tokens <= 2
    )


def test_what_cannot_be_asked(teacher_folder: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, 30, 30)
    for question in ("", "  \n"):
        with pytest.raises(ValueError, match="question is empty"):
            ask(path, question, teacher_folder)
    with pytest.raises(ValueError, match="marks images"):
        ask(path, "what is <IMG_CONTEXT> here?", teacher_folder)
    with pytest.raises(ValueError, match="max_new_tokens"):
        ask(path, "What?", teacher_folder, max_new_tokens=0)
    with pytest.raises(ImageError, match="no such file"):
        ask(tmp_path / "none.png", "What?", teacher_folder)
    (tmp_path / "empty").mkdir()
    for model in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(ValueError, match="not a model") as caught:
            ask(path, "What?", model)
        assert "\n" not in str(caught.value)
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="gpt2 is not a supported model type"):
        ask(path, "What?", tmp_path / "empty")
    shutil.copytree(teacher_folder, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="the model cannot be loaded"):
        ask(path, "What?", tmp_path / "cut")


def test_the_embedded_teacher_warns(
    teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcot_vl.stages.ask.tiny_teacher_path", lambda: teacher_folder)
    Image.new("CMYK", (200, 90)).save(tmp_path / "receipt.jpg")
    answer = ask(tmp_path / "receipt.jpg", "What is the total?", max_new_tokens=2)
    assert answer.model == "embedded"
    assert answer.notice == EMBEDDED_NOTICE
    assert "\n" not in EMBEDDED_NOTICE
