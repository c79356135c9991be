"""The files of an evaluation under way: what several processes wrote, joined by question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fcot_vl.evaluate.predictions import PredictionFiles
from fcot_vl.evaluate.processes import connect_processes


def rows(*names: str, text: str = "x") -> list[dict[str, str]]:
    return [{"id": name, "prediction": text} for name in names]


def test_shares_of_any_number_of_processes_become_one_file(tmp_path: Path) -> None:
    for rank, names in [(0, "ab"), (1, "c"), (2, "de")]:
        PredictionFiles(tmp_path, rank).add(rows(*names), 2.0)
    files = PredictionFiles(tmp_path)
    files.add(rows("f"), 4.0)
    assert set(files.answered()) == {"f"}
    files.join()
    assert set(files.answered()) == set("abcdef")
    assert files.seconds_per_question() == pytest.approx(10 / 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "times.jsonl"]
    files.join()
    assert set(files.answered()) == set("abcdef")


def test_the_first_answer_stays_and_a_torn_line_goes(tmp_path: Path) -> None:
    PredictionFiles(tmp_path).add(rows("a", text="first"), 1.0)
    PredictionFiles(tmp_path, 0).add(rows("a", "b", text="second"), 1.0)
    with (tmp_path / "predictions.0.jsonl").open("a") as file:
        file.write('{"id": "c", "predi')
    files = PredictionFiles(tmp_path)
    files.join()
    assert {name: row["prediction"] for name, row in files.answered().items()} == {
        "a": "first",
        "b": "second",
    }
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b"]


def test_a_damaged_share_is_named_and_nothing_is_removed(tmp_path: Path) -> None:
    PredictionFiles(tmp_path, 0).add(rows("a"), 1.0)
    (tmp_path / "predictions.1.jsonl").write_text('broken\n{"id": "b"}\n')
    with pytest.raises(ValueError, match=r"predictions\.1\.jsonl: line 1 is not JSON"):
        PredictionFiles(tmp_path).join()
    assert (tmp_path / "predictions.0.jsonl").exists()


def test_nothing_was_timed(tmp_path: Path) -> None:
    PredictionFiles(tmp_path).join()
    assert PredictionFiles(tmp_path).seconds_per_question() is None
    assert PredictionFiles(tmp_path).answered() == {}


def test_one_process_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    found = connect_processes()
    assert (found.rank, found.world_size, found.is_main) == (0, 1, True)
    found.wait()
