"""Exporting a student: what it carries, and that it answers the same where this package is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import fcot_vl
from fcot_vl.stages.export import export

ELSEWHERE = """
import sys
sys.modules["fcot_vl"] = None  # as if it were not installed
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
folder = sys.argv[1]
model, info = AutoModelForImageTextToText.from_pretrained(
    folder, trust_remote_code=True, dtype=torch.float32, output_loading_info=True
)
assert not any(info.values()), info
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
picture = Image.new("RGB", (224, 112), "white")
text = [{"type": "image", "image": picture}, {"type": "text", "text": "Read it."}]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": text}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
)
with torch.no_grad():
    logits = model.eval()(**inputs).logits
print(type(model).__module__, type(processor).__module__, model.config.compress_ratio)
torch.save({"inputs": dict(inputs), "logits": logits}, sys.argv[2])
"""


@pytest.fixture
def student(
    make_student: Callable[..., fcot_vl.FCoTVLForConditionalGeneration],
    processor_for: Callable[..., fcot_vl.FCoTVLProcessor],
    tmp_path: Path,
) -> Path:
    model = make_student(4, visual_positions="kept")
    model.save_pretrained(tmp_path / "student")
    processor_for(model).save_pretrained(tmp_path / "student")
    return tmp_path / "student"


def test_it_loads_by_remote_code_without_this_package(student: Path, tmp_path: Path) -> None:
    out = export(student, tmp_path / "out", remote_code=True)
    command = [sys.executable, "-c", ELSEWHERE, str(out), str(tmp_path / "elsewhere.pt")]
    ran = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=_environment(tmp_path), check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[-1] == "4" and "fcot_vl.models" not in ran.stdout
    elsewhere = torch.load(tmp_path / "elsewhere.pt", weights_only=True)
    model = AutoModelForImageTextToText.from_pretrained(student, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(model(**elsewhere["inputs"]).logits, elsewhere["logits"])


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}


def test_a_compressor_of_several_files_travels_along(
    make_student: Callable[..., fcot_vl.FCoTVLForConditionalGeneration],
    processor_for: Callable[..., fcot_vl.FCoTVLProcessor],
    tmp_path: Path,
) -> None:
    model = make_student(4, "c_abstractor", "kept")
    model.save_pretrained(tmp_path / "student")
    processor_for(model).save_pretrained(tmp_path / "student")
    test_it_loads_by_remote_code_without_this_package(tmp_path / "student", tmp_path)
    room, carried = Path(fcot_vl.__file__).parent / "models" / "compressors", tmp_path / "out"
    assert all((carried / f"compressors_{path.stem}_fcot_vl.py").exists() for path in room.glob("[a-z]*.py"))
    assert not any("fcot_vl.models" in path.read_text().split('"""', 2)[2] for path in carried.glob("*.py"))


def test_without_remote_code_it_holds_no_code(student: Path, tmp_path: Path) -> None:
    out = export(student, tmp_path / "out")
    assert not list(out.glob("*.py"))
    assert "auto_map" not in json.loads((out / "config.json").read_text())
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert isinstance(model, fcot_vl.FCoTVLForConditionalGeneration)
    assert isinstance(AutoProcessor.from_pretrained(out), fcot_vl.FCoTVLProcessor)


def test_the_card(student: Path, tmp_path: Path) -> None:
    settings = {"max_steps": 7, "bf16": False}
    record = {
        "stage": "post-train",
        "seed": 3,
        "commit": "abc",
        "status": "done",
        "inputs": {},
        "settings": settings,
    }
    (student / "stage.json").write_text(json.dumps(record))
    scored = {"n": 20, "score": 0.875, "ci": [0.8, 0.9]}
    result = {
        "tasks": {"forms": scored},
        "n": 20,
        "mean_over_tasks": 0.875,
        "mean_over_tasks_ci": [0.8, 0.9],
        "split": "test",
        "data_hash": "0123456789abcdef",
        "date": "2026-01-01",
        "hardware": "a CPU",
    }
    (tmp_path / "result.json").write_text(json.dumps(result))
    out = export(
        student,
        tmp_path / "out",
        base_model="OpenGVLab/InternVL2-2B",
        license="mit",
        result=tmp_path / "result.json",
    )
    card = (out / "README.md").read_text()
    assert card.startswith("---\n") and {"license: mit", "base_model: OpenGVLab/InternVL2-2B"} < set(
        card.splitlines()
    )
    assert "compress ratio 4" in card and "| forms | 20 | 87.5 [80.0, 90.0] |" in card
    assert "| max_steps | 7 |" in card and "bf16" not in card
    assert "import fcot_vl" in card and "trust_remote_code" not in card


def test_what_is_no_student_is_refused(teacher_folder: Path, student: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a internvl model, not a student"):
        export(teacher_folder, tmp_path / "out")
    with pytest.raises(ValueError, match=r"no config\.json"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="not the result of an evaluation"):
        export(student, tmp_path / "out", result=student / "config.json")
    (student / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no weights"):
        export(student, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_push_that_fails_keeps_the_folder(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(ValueError, match="could not be pushed to me/it: no network"):
        export(student, tmp_path / "out", push="me/it")
    assert (tmp_path / "out" / "config.json").exists()
