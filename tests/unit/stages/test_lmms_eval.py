"""Local data for lmms-eval's tasks, and what must hold without lmms-eval installed."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datasets import Dataset, DatasetDict, load_from_disk
from PIL import Image

from fcot_vl.data.dataset import Sample
from fcot_vl.stages.lmms_eval import (
    LmmsTaskConfig,
    _split_of,
    docvqa_row,
    find_task,
    lmms_task,
    task_file,
    write_docvqa,
)

ROOT = Path(__file__).resolve().parents[3]
DOCVQA = {
    "test_split": "validation",
    "lmms_eval_specific_kwargs": {
        "default": {"pre_prompt": "", "post_prompt": "\nOne word.", "prompt_format": "qa"},
        "qwen_vl": {"pre_prompt": "", "post_prompt": " Answer:"},
    },
}


def page(number: int, answers: list[str] | None = None, pictures: int = 1) -> Sample:
    noise = np.random.default_rng(number)
    images = [
        Image.fromarray(noise.integers(0, 255, (20 + number, 30, 3), dtype=np.uint8)) for _ in range(pictures)
    ]
    messages = [
        {"role": "user", "content": f"Which is number {number}?"},
        {"role": "assistant", "content": "said"},
        {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": "nothing"},
    ]
    return Sample(f"page-{number}", images, messages, "", "test", [] if answers is None else answers)


def test_a_row_is_the_first_question_with_its_accepted_answers() -> None:
    row = docvqa_row(page(1, ["a", "b"]))
    assert (row["questionId"], row["question"]) == ("page-1", "Which is number 1?")
    assert row["answers"] == ["a", "b"]
    assert docvqa_row(page(1))["answers"] == ["said"]


def test_a_record_of_another_shape_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"page-2.*2 images"):
        docvqa_row(page(2, pictures=2))
    silent = page(3)
    silent.messages = silent.messages[:1]
    with pytest.raises(ValueError, match=r"page-3.*0 answers"):
        docvqa_row(silent)


def test_the_dataset_has_docvqas_columns_and_the_very_pixels(tmp_path: Path) -> None:
    records = [page(n, [f"{n}", "x"]) for n in range(3)]
    write_docvqa(records, tmp_path / "dataset", "validation")
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]
    read: Any = load_from_disk(str(tmp_path / "dataset"))
    assert set(read) == {"validation"}
    rows = list(read["validation"])
    assert len(rows) == 3
    for row, record in zip(rows, records, strict=True):
        assert set(row) == {"questionId", "question", "image", "answers"}
        assert row["answers"] == record.answers
        assert np.array_equal(np.asarray(row["image"]), np.asarray(record.images[0]))


def test_a_refused_record_leaves_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="page-1"):
        write_docvqa([page(0), page(1, pictures=2)], tmp_path / "dataset", "validation")
    assert not (tmp_path / "dataset").exists()


def test_the_task_file_changes_the_data_and_nothing_else() -> None:
    made = task_file(Path("/there/docvqa_val.yaml"), DOCVQA, Path("/data"), "mine", "validation", False)
    assert yaml.safe_load(yaml.safe_dump(made)) == {
        "include": "/there/docvqa_val.yaml",
        "task": "mine",
        "dataset_path": "/data",
        "dataset_kwargs": {"load_from_disk": True},
        "test_split": "validation",
    }


def test_a_bare_task_asks_without_words_and_keeps_other_settings() -> None:
    made = task_file(Path("/there/docvqa_val.yaml"), DOCVQA, Path("/data"), "mine", "validation", True)
    assert made["lmms_eval_specific_kwargs"] == {
        "default": {"pre_prompt": "", "post_prompt": "", "prompt_format": "qa"}
    }
    with pytest.raises(ValueError, match="mathvista"):
        task_file(Path("mathvista.yaml"), {"lmms_eval_specific_kwargs": {}}, Path("/"), "m", "test", True)


def test_a_saved_dataset_of_several_splits_needs_one_named(tmp_path: Path) -> None:
    rows = Dataset.from_list([{"question": "?"}])
    DatasetDict({"test": rows}).save_to_disk(tmp_path / "one")
    DatasetDict({"test": rows, "validation": rows}).save_to_disk(tmp_path / "two")
    assert _split_of(tmp_path / "one", None) == "test"
    assert _split_of(tmp_path / "two", "validation") == "validation"
    for asked in (None, "train"):
        with pytest.raises(ValueError, match="test, validation"):
            _split_of(tmp_path / "two", asked)


def test_without_lmms_eval_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="make eval-env"):
        find_task("docvqa_val", "mine")
    with pytest.raises(ValueError, match="make eval-env"):
        lmms_task(LmmsTaskConfig(tmp_path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------- the plug-in, unimported


def test_the_entry_point_leads_to_a_function() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["lmms_eval.models"]
    assert declared == {"fcot_vl": "fcot_vl.evaluate.lmms_eval_model:manifest"}
    module, _, function = declared["fcot_vl"].partition(":")
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_nothing_else_needs_lmms_eval() -> None:
    """Imported at the top only by the plug-in, which only the entry point names."""
    for path in (ROOT / "fcot_vl").rglob("*.py"):
        text = path.read_text()
        assert (
            "fcot_vl.evaluate.lmms_eval_model import" not in text
            and "evaluate import lmms_eval_model" not in text
        ), path
        if path.name != "lmms_eval_model.py":
            assert not re.search(r"^(from|import) lmms_eval", text, re.MULTILINE), path


# ------------------------------------------------------------------------------------------- its environment


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in found), f"{name}: a line is no pin"
    names = [_plain(package) for package, _ in found]
    assert len(set(names)) == len(names), f"{name}: a package twice"
    return dict(zip(names, (version for _, version in found), strict=True))


def _plain(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=\[ ]", requirement)[0]).lower()


def test_the_environment_is_pinned_whole_and_agrees_with_the_other() -> None:
    ours, theirs = pins("constraints.txt"), pins("constraints-eval.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["eval"], *extras["test"], "lmms-eval"]:
        assert _plain(requirement) in theirs, f"{requirement} is not pinned in constraints-eval.txt"
    assert all("+" not in version for version in theirs.values())
    differing = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    assert differing == {"python-dateutil"}  # pytablewriter wants one below 3
    assert "torchvision" not in theirs
