"""The wheel holds what it needs away from the checkout: weights, tokenizer, recipes."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_what_the_wheel_holds(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tiny = {f"fcot_vl/models/tiny/{p.name}" for p in (ROOT / "fcot_vl/models/tiny").iterdir() if p.is_file()}
    recipes = {str(p.relative_to(ROOT)) for p in (ROOT / "fcot_vl" / "recipes").rglob("*") if p.is_file()}
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "fcot_vl").rglob("*.py")}
    prompts = {f"fcot_vl/instruct/prompts/{name}.yaml" for name in ("rewrite", "cot")}
    assert tiny | recipes | sources | prompts | {"fcot_vl/report/templates/report.md.jinja"} <= names
    assert {
        f"fcot_vl/models/tiny/{n}"
        for n in ("config.json", "model.safetensors", "tokenizer.json", "README.md")
    } <= names
    assert any(name.endswith("LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "tools/", "runs/", "docs/")) for name in names)
    assert wheel.stat().st_size < 13e6


def test_the_wheel_finds_its_own_recipes_and_teacher(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "from fcot_vl.common.config import find_recipe; from fcot_vl.models.tiny import tiny_teacher_path;"
        "print(find_recipe('demo')); print(find_recipe('scale/realign')); print(tiny_teacher_path())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
    )
    lines = ran.stdout.splitlines()
    assert len(lines) == 3
    assert all(Path(line).exists() and Path(line).is_relative_to(tmp_path / "site") for line in lines)
