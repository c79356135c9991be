"""Stage folders: begun, resumed, recognized, refused; never half a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fcot_vl.common import provenance
from fcot_vl.common.files import append_rows, read_rows, replacing, write_json, write_rows
from fcot_vl.common.stage import StageError, open_stage, read_stage

SETTINGS: dict[str, Any] = {"ratio": 2, "steps": [1, 2], "path": Path("a/b"), "shape": (3, 4)}


def test_the_life_of_a_stage(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "realign"
    first = open_stage(folder, "realign", SETTINGS, {"data": "d"}, seed=3)
    assert not first.done
    record = json.loads((folder / "stage.json").read_text())
    assert record["status"] == "running"
    assert record["settings"] == {"ratio": 2, "steps": [1, 2], "path": "a/b", "shape": [3, 4]}
    assert set(record) == {
        *(
            "stage",
            "status",
            "inputs",
            "settings",
            "seed",
            "versions",
            "commit",
            "hardware",
            "date",
            "seconds",
        ),
        *("figures", "runs"),
    }
    assert {"torch", "transformers", "fcot-vl", "python"} == set(record["versions"])
    assert "GiB" in record["hardware"]

    resumed = open_stage(folder, "realign", SETTINGS, {"data": "d"}, seed=3)
    assert not resumed.done
    assert resumed.record["runs"] == 2
    resumed.finish({"loss": 0.5})
    assert resumed.done

    again = open_stage(folder, "realign", SETTINGS, {"data": "d"}, seed=3)
    assert again.done
    assert again.figures == {"loss": 0.5}
    assert again.record["seconds"] >= 0
    assert read_stage(folder) == again.record


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": {**SETTINGS, "ratio": 4}}, "settings.ratio (there 2, asked 4)"),
        ({"settings": {**SETTINGS, "new": 1}}, "settings.new (there null, asked 1)"),
        ({"inputs": {"data": "other"}}, 'inputs.data (there "d", asked "other")'),
        ({"seed": 4}, "seed (there 3, asked 4)"),
        ({"name": "post-train"}, "holds the stage 'realign'"),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_another_step_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], named: str, finished: bool
) -> None:
    asked: dict[str, Any] = {"name": "realign", "settings": SETTINGS, "inputs": {"data": "d"}, "seed": 3}
    begun = open_stage(tmp_path, **asked)
    if finished:
        begun.finish({})
    before = (tmp_path / "stage.json").read_bytes()
    with pytest.raises(StageError) as caught:
        open_stage(tmp_path, **(asked | change))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "output folder" in str(caught.value)
    assert (tmp_path / "stage.json").read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stage": "x"}', "\x00\xff"])
def test_a_damaged_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "stage.json").write_text(content)
    with pytest.raises(StageError, match=r"stage\.json: "):
        open_stage(tmp_path, "realign", {}, {})


def test_a_file_in_the_way_and_no_record(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StageError, match="is a file"):
        open_stage(tmp_path / "file", "realign", {}, {})
    with pytest.raises(StageError, match="is a file"):
        open_stage(tmp_path / "file" / "below", "realign", {}, {})
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "deeper")
    with pytest.raises(StageError, match="cannot write here"):
        open_stage(tmp_path / "link", "realign", {}, {})
    with pytest.raises(StageError, match="run the stage that writes this folder first"):
        read_stage(tmp_path)


def test_write_json_keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_an_installed_copy_does_not_claim_a_strangers_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    module = tmp_path / "common" / "provenance.py"
    module.parent.mkdir()
    module.touch()
    monkeypatch.setattr(provenance, "__file__", str(module))
    provenance.git_commit.cache_clear()
    try:
        git("init", "-q")
        git("commit", "-q", "--allow-empty", "-m", "theirs")
        assert provenance.git_commit() is None
        git("add", "common/provenance.py")
        git("commit", "-q", "-m", "ours")
        provenance.git_commit.cache_clear()
        assert provenance.git_commit() == git("rev-parse", "HEAD")
        module.write_text("changed = 1\n")
        provenance.git_commit.cache_clear()
        assert provenance.git_commit() == git("rev-parse", "HEAD") + "-dirty"
    finally:
        provenance.git_commit.cache_clear()


def test_rows_of_a_log(tmp_path: Path) -> None:
    """Only a line feed ends a row; a last one cut within a letter is left out, a damaged one before it is named."""
    path = tmp_path / "log.jsonl"
    assert read_rows(path) == []
    whole = json.dumps({"text": "a\u2028b \x85 é"}, ensure_ascii=False)
    path.write_bytes(f"{whole}\n{whole}".encode()[:-3])
    assert read_rows(path) == [{"text": "a\u2028b \x85 é"}]
    path.write_text(f"{whole}\n{{\n{whole}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"log\.jsonl: line 2 is not JSON"):
        read_rows(path)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    (tmp_path / ".a.txt.partial").write_text("left by a killed process")
    with replacing(path) as partial:
        assert not partial.exists()
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"

    def killed() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for text in ("first", "second"):
        with replacing(path) as partial:
            partial.mkdir()
            (partial / f"{text}.txt").write_text(text)
    assert [file.name for file in path.iterdir()] == ["second.txt"]
    assert list(tmp_path.iterdir()) == [path]


def test_rows_are_written_and_appended(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"a": "\u2028ß"}])
    append_rows(path, [{"b": 2}])
    assert read_rows(path) == [{"a": "\u2028ß"}, {"b": 2}]
