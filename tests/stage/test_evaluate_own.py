"""A user's own questions and answers, and a finished evaluation that is recognised without decoding a pixel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from source_files import picture, record

from fcot_vl.data.dataset import StoredImage, write_shard
from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.stages.evaluate import evaluate
from fcot_vl.synthesize.minidoc import make_sample

TEACHER = tiny_teacher_path()


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_own_questions_are_scored(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / "a.png", 90, 60)
    records = [
        {"id": "same", "image": "a.png", "question": "What is the total?", "answer": 42},
        {"id": "same", "image": "a.png", "question": "What?", "answers": ["a", 7]},
        record("c", "a.png", "<image>\nRead.", "text"),
        {"image": "a.png", "question": None, "answer": "x"},
        {"image": "a.png", "question": "Who \ud83d?", "answer": "x"},
        {"image": "a.png", "question": "Who?"},
        {"question": "Who?", "answer": "x"},
    ]
    texts = [json.dumps(one) for one in records]
    path = tmp_path / f"own{suffix}"
    path.write_text("\n".join(texts) if suffix == ".jsonl" else f"[{','.join(texts)}]")
    result = evaluate(TEACHER, path, tmp_path / "out", max_skipped=0.9)
    assert (result["n"], result["skipped"]) == (3, 4)
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["0:same", "1:same", "2:c"]
    assert [row["answers"] for row in rows] == [["42"], ["a", "7"], ["text"]]
    skipped = (tmp_path / "out" / "skipped.jsonl").read_text()
    assert "nothing" in skipped and "not valid Unicode" in skipped and "without an image" in skipped
    with pytest.raises(ValueError, match="4 of 7 questions cannot be used"):
        evaluate(TEACHER, path, tmp_path / "strict")


def test_a_finished_evaluation_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    write_shard(tmp_path / "data" / "a.parquet", [make_sample("test", at, 0, "forms") for at in range(3)])
    first = evaluate(TEACHER, tmp_path / "data", tmp_path / "out", limit=2)

    def decode(image: StoredImage) -> None:
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr(StoredImage, "load", decode)
    assert evaluate(TEACHER, tmp_path / "data", tmp_path / "out", limit=2) == first
    with pytest.raises(AssertionError, match="decoded"):
        evaluate(TEACHER, tmp_path / "data", tmp_path / "out", limit=3)
