"""Hashes of model folders: those of earlier versions, and what they tell apart."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from fcot_vl.common.hashing import former_model_hash, hash_model_folder, hash_without_reading
from fcot_vl.common.stage import StageError, open_stage, read_stage


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a model of two shards."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("a.safetensors", "b.safetensors", "config.json", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    os.utime(folder / "a.safetensors", ns=(5, 7))
    return folder


def test_digests_of_earlier_versions_are_the_same(model: Path) -> None:
    """Recorded before all of them were in one module."""
    weights = [model / "a.safetensors"]
    assert {
        "label": hash_model_folder(model),
        "evaluate": former_model_hash(model),
        "convert": hash_without_reading({"x": 1}, weights, times=False),
        "merge": hash_without_reading({"x": 1}, weights, times=True),
    } == {
        "label": "a3d33f0c96473d076b587f77d0ec68a3978bc4b74dec3b73f2b6666c89689cbc",
        "evaluate": "f8208a66f59fa19c2abae6bf581db7900403d8b5a95c79550b8d03184bddc68c",
        "convert": "eed1792b146d94e7c9fef54250d25d1e3db2f3842bdae0b704de5495037afe2d",
        "merge": "4b8d4e1490dad90a2fd602dc4122b4a3b82b27a50f5dde1536a221c0d347b777",
    }
    assert hash_model_folder(Path("owner/name")) == former_model_hash(Path("owner/name")) == "owner/name"


def test_other_weights_are_told_apart(model: Path) -> None:
    before, path = hash_model_folder(model), model / "a.safetensors"
    (model / "notes.txt").write_text("other")
    assert hash_model_folder(model) == before
    quick = [hash_without_reading({}, [path], times) for times in (False, True)]
    path.write_bytes(b"A.SAFETENSORS")
    assert hash_model_folder(model) != before
    same, other = (hash_without_reading({}, [path], times) for times in (False, True))
    assert (same == quick[0]) and (other != quick[1])


def test_a_folder_with_former_inputs_is_resumed_and_keeps_them(tmp_path: Path) -> None:
    former = {"weights": hashlib.sha256(b"old").hexdigest()}
    open_stage(tmp_path, "evaluate", {}, former).finish({})
    assert open_stage(tmp_path, "evaluate", {}, {"weights": "new"}, former=lambda: former).done
    assert read_stage(tmp_path)["inputs"] == former
    with pytest.raises(StageError, match="weights"):
        open_stage(tmp_path, "evaluate", {}, {"weights": "new"}, former=lambda: {"weights": "other"})
    with pytest.raises(StageError, match="weights"):
        open_stage(tmp_path, "evaluate", {}, {"weights": "new"})
