"""What the documents say is what is there: commands, flags, the tree, links, recipes, versions."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import fcot_vl
from fcot_vl.cli.app import app
from fcot_vl.common.config import build, find_recipe, read_recipe
from fcot_vl.pipeline.plan import plan
from fcot_vl.pipeline.recipe import Recipe
from fcot_vl.stages.post_train import PostTrainConfig
from fcot_vl.stages.realign import RealignConfig
from fcot_vl.version import __version__

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCALE = sorted((ROOT / "fcot_vl" / "recipes" / "scale").glob("*.yaml"))
RECIPES = sorted((ROOT / "fcot_vl" / "recipes").glob("*.yaml"))
VERBS = dict(typer.main.get_command(app).commands.items())  # type: ignore[attr-defined]
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
MORE_FLAGS = {"realign": RealignConfig, "post-train": PostTrainConfig, "resample": PostTrainConfig}


def shell_lines(path: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    loop = re.compile(r"for \w+ in [\w ]+; do|done")
    return [line for line in lines if shlex.split(line, comments=True) and not loop.fullmatch(line)]


def plugin_settings() -> set[str]:
    """What `--model_args` of lmms-eval may name; read, since the module needs lmms-eval."""
    tree = ast.parse((ROOT / "fcot_vl" / "evaluate" / "lmms_eval_model.py").read_text())
    (model,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "FCoTVL")
    (init,) = (node for node in model.body if getattr(node, "name", "") == "__init__")
    return {argument.arg for argument in init.args.args} - {"self"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_in_the_documents_exists(path: Path) -> None:
    for line in shell_lines(path):
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            assert words[1] in TARGETS, line
            continue
        if words[0] == "sbatch":
            script = next(word for word in words[1:] if not word.startswith("-"))
            assert (ROOT / script).is_file(), line
            continue
        if words[0] == "python":
            assert (ROOT / words[1]).is_file(), line
            continue
        if words[0] == "torchrun":
            words = ["fcot-vl", *words[words.index("fcot_vl") + 1 :]]
        if "lmms-eval" in Path(words[0]).name or "lmms_eval" in words:
            assert words[0].startswith(".venv-eval/bin/"), line
            assert words[words.index("--model") + 1] == "fcot_vl", line
            settings = [pair.split("=")[0] for pair in words[words.index("--model_args") + 1].split(",")]
            assert set(settings) <= plugin_settings(), line
            continue
        words[0] = words[0].removeprefix(".venv-eval/bin/")
        assert words[0] == "fcot-vl", f"{path.name}: {line!r} is neither make nor fcot-vl"
        assert words[1] in VERBS, line
        flags = {option for parameter in VERBS[words[1]].params for option in parameter.opts}
        if words[1] in MORE_FLAGS:
            flags |= {f"--{name.replace('_', '-')}" for name in MORE_FLAGS[words[1]].__dataclass_fields__}
        assert {word for word in words[2:] if word.startswith("--")} <= flags, line


def test_the_readme_shows_the_two_commands() -> None:
    lines = [shlex.split(line, comments=True) for line in shell_lines(ROOT / "README.md")]
    assert lines[:2] == [["make", "demo"], ["make", "reproduce"]]
    assert {"demo", "reproduce", "test", "lint", "docs"} <= TARGETS


def test_every_verb_is_documented() -> None:
    reference = (ROOT / "docs" / "cli.md").read_text()
    readme = (ROOT / "README.md").read_text()
    for verb in VERBS:
        assert f"## `fcot-vl {verb}`" in reference
        assert f"`{verb}`" in readme
        if verb not in ("demo", "reproduce"):
            page = (ROOT / "docs" / "stages" / f"{verb}.md").read_text()
            assert f"fcot-vl {verb} " in page
            assert f"[{verb}]({verb}.md)" in (ROOT / "docs" / "stages" / "README.md").read_text()


@pytest.mark.slow
def test_the_flag_reference_is_what_make_docs_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "typer", "fcot_vl.cli.app", "utils", "docs", "--name", "fcot-vl"]
    written = tmp_path / "cli.md"
    subprocess.run([*command, "--output", str(written)], check=True, cwd=ROOT, capture_output=True)
    assert (ROOT / "docs" / "cli.md").read_text() == written.read_text(), "run `make docs`"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def file_tree() -> dict[Path, str]:
    """Map each path of the tree in docs/architecture.md to its caption."""
    block = re.search(
        r"```text\n(fcot_vl/.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL
    )
    assert block is not None
    found: dict[Path, str] = {}
    parents: list[Path] = []
    for line in block.group(1).splitlines():
        entry, _, caption = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        here = (parents[depth - 1] if depth else ROOT) / entry
        parents[depth:] = [here]
        found[here] = caption.strip()
    return found


def test_the_tree_of_files_is_what_is_there() -> None:
    tree = file_tree()
    for path, caption in tree.items():
        assert path.exists(), f"the tree names {path.relative_to(ROOT)}, which is not there"
        assert caption, f"{path.relative_to(ROOT)} has no caption"
    package = ROOT / "fcot_vl"
    listed = {path.parent for path in tree if path.parent != ROOT}
    for folder in listed:
        for path in folder.iterdir():
            if path.name.startswith(("_", ".")):
                continue
            if path.suffix == ".py" or (path.is_dir() and folder == package):
                assert path in tree, f"{path.relative_to(ROOT)} is missing from the tree"


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_parse_into_the_dataclasses(path: Path, teacher_folder: Path, tmp_path: Path) -> None:
    sections = read_recipe(path)
    assert find_recipe(path.stem) == path
    realign = build(RealignConfig, sections["realign"], output_dir=str(tmp_path), use_cpu=True)
    post_train = build(PostTrainConfig, sections["post_train"], output_dir=str(tmp_path), use_cpu=True)
    assert realign.ratios == sections["realign"]["ratios"]
    for config, section in ((realign, sections["realign"]), (post_train, sections["post_train"])):
        assert isinstance(config.learning_rate, float)
        assert config.learning_rate == section["learning_rate"]
    recipe = build(Recipe, sections, teacher=str(teacher_folder))
    assert plan(recipe)
    assert recipe.output == Path("runs") / path.stem


def test_the_settings_for_many_gpus_are_readable(tmp_path: Path) -> None:
    scale = ROOT / "fcot_vl" / "recipes" / "scale"
    for name, config in (("realign", RealignConfig), ("post_train", PostTrainConfig)):
        section = read_recipe(f"scale/{name}")[name]
        built: Any = build(config, section, output_dir=str(tmp_path), use_cpu=True)
        assert {key: getattr(built, key) for key in section if key != "warmup_steps"} == {
            key: value for key, value in section.items() if key != "warmup_steps"
        }
    for path in scale.glob("*.json"):
        assert json.loads(path.read_text())["zero_optimization"]["stage"] == int(path.stem[-1])
    subprocess.run(["bash", "-n", scale / "slurm.sh"], check=True)
    mentioned = (ROOT / "docs" / "scale.md").read_text() + (scale / "slurm.sh").read_text()
    assert all(path.name in mentioned for path in scale.iterdir())


@pytest.mark.parametrize("path", [*RECIPES, *SCALE], ids=lambda p: p.stem)
def test_every_recipe_value_says_whose_it_is(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        value, _, comment = line.partition("#")
        if not value.strip() or value.rstrip().endswith(":"):
            continue
        key = value.strip().partition(":")[0]
        if key in ("output", "seed"):
            continue
        assert re.search(r"\b(paper|ours)\b", comment), f"{path.name}:{number}: {key} is the paper's or ours?"


def test_recipes_are_read_as_written() -> None:
    for path in RECIPES:
        assert yaml.safe_load(path.read_text()).keys() == read_recipe(path).keys()


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert fcot_vl.__version__ == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    extras = {name: asked for name, asked in project["optional-dependencies"].items() if name != "eval"}
    asked = [
        *project["dependencies"],
        *(d for extra in extras.values() for d in extra),
    ]  # eval: test_lmms_eval.py
    for requirement in asked:
        name = re.split(r"[<>=\[]", requirement)[0].strip()
        if name != project["name"]:
            assert name.lower() in {p.lower() for p in pinned}, f"{name} is not pinned in constraints.txt"
    assert all("+" not in version for version in pinned.values()), "no local version tags in constraints.txt"


def test_ci_runs_what_the_readme_says() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    run = [line for line in lines if line.startswith("make ")]
    assert run == ["make lint", "make test", "make test-bare", "make test-avx2"]
    said = [line.split("  #")[0] for line in shell_lines(ROOT / "README.md")]
    assert said[said.index(run[0]) :][: len(run)] == run
    assert "`.ci/run` runs the first four" in (ROOT / "README.md").read_text()
