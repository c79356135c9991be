"""A recipe through every stage on a random teacher, in this process and side by side, and again after it is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

from fcot_vl.common.config import RecipeError, build
from fcot_vl.common.stage import StageError, read_stage
from fcot_vl.data.dataset import SampleFolder
from fcot_vl.pipeline import run_recipe
from fcot_vl.pipeline.baselines import list_baselines
from fcot_vl.pipeline.plan import plan
from fcot_vl.pipeline.recipe import Recipe, load_recipe
from fcot_vl.pipeline.scheduler import PipelineError, run_here
from fcot_vl.pipeline.step import Step, StepQueue
from fcot_vl.report.results import gather
from fcot_vl.stages.synthesize import OCR_TASKS


def small_recipe(folder: Path, teacher: Path, **changes: object) -> Path:
    training = {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "use_cpu": True}
    content = {
        "output": str(folder / "run"),
        "teacher": str(teacher),
        "control_seeds": [0],
        "synthesize": {"train": 4, "test": 4, "seed": 0},
        "realign": {"ratios": [2, 4], "cache_features": True, **training},
        "post_train": {"freeze_vision": True, "cache_features": True, **training},
        "evaluate": {"batch_size": 8},
        "bench": {"pages": 1, "new_tokens": 2, "rounds": 1},
        "baselines": {
            "methods": ["fastv", "random", "uniform", "smaller_page"],
            "keep": [0.5],
            "layers": [1],
        },
        **changes,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def whole(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe that was run whole, in this process."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_recipe(small_recipe(folder, teacher_folder)) == folder / "run" / "report"
    return folder


def test_kept_checkpoints_are_merged_and_judged(tmp_path: Path, teacher_folder: Path) -> None:
    """Post-trained and merged models are rows of the report; the weights were chosen on pages of their own."""
    training = {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "use_cpu": True}
    changes = {
        "control_seeds": [],
        "baselines": {},
        "realign": {"ratios": [2], **training},
        "post_train": {"keep_checkpoints": 2, **training},
        "merge": {"methods": ["average", "shapley"], "checkpoints": 2, "validation": 2},
    }
    recipe = small_recipe(tmp_path, teacher_folder, **changes)
    try:
        run_recipe(recipe)
    except ValueError as error:  # a random model may score nothing: then there is nothing to weigh
        assert "no checkpoint" in str(error) or "better" in str(error), error
        changes["merge"] = {"methods": ["average", "task-arithmetic"], "checkpoints": 2, "validation": 2}
        run_recipe(small_recipe(tmp_path, teacher_folder, **changes))
    labels = {j.variant.label for j in gather(tmp_path / "run").models}
    assert {"student 2x", "student 2x, merged: average"} < labels and len(labels) == 5
    record = json.loads((tmp_path / "run" / "seed-0" / "merge-2-average" / "merge.json").read_text())
    assert [Path(c["folder"]).name for c in record["checkpoints"]] == ["step-000001", "step-000002"]


def test_a_merge_needs_kept_checkpoints(tmp_path: Path, teacher_folder: Path) -> None:
    recipe = small_recipe(tmp_path, teacher_folder, merge={"methods": ["average"]})
    with pytest.raises(RecipeError, match="keep_checkpoints"):
        run_recipe(recipe)


def test_the_whole_path(whole: Path) -> None:
    run = whole / "run"
    found = gather(run)
    labels = {j.variant.label for j in found.models}
    assert labels == {
        "teacher",
        "control: teacher post-trained",
        "student 2x",
        "student 4x",
        "student 2x, re-aligned only",
        "student 4x, re-aligned only",
        "FastV 50%, K=1",
        "FastV 33.3%, K=1",
        "random drop 50%",
        "uniform drop 50%",
        "smaller page 50%",
    }
    costs = {j.variant.label: j.mean("visual_tokens_layer_mean") for j in found.models}
    assert costs["student 2x"] == pytest.approx(costs["teacher"] / 2)
    assert costs["FastV 33.3%, K=1"] == pytest.approx(costs["student 2x"], rel=0.02)
    assert {c.compress_ratio for c in found.curves} == {2, 4}
    timed = {j.variant.label for j in found.models if found.timing(j.variant)}
    assert timed == {label for label in labels if "control" not in label} - {
        "student 2x, re-aligned only",
        "student 4x, re-aligned only",
    }
    assert all(read_stage(path.parent)["status"] == "done" for path in run.rglob("stage.json"))


def test_a_finished_run_is_recognized(whole: Path, log: Callable[[], str]) -> None:
    run = whole / "run"
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if "report" not in p.parts and p.is_file()}
    run_recipe(whole / "small.yaml")
    assert {p: p.stat().st_mtime_ns for p in before} == before, "a finished stage was done again"
    assert "none is pre-trained" in log() and "[1/" in log()


def test_a_run_in_this_process_leaves_its_threads_as_they_were() -> None:
    before, during = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        one = Step("one", lambda: during.append(torch.get_num_threads()))
        run_here([one], threads=3)
        assert (during, torch.get_num_threads()) == ([3], 2)
    finally:
        torch.set_num_threads(before)


def test_side_by_side_gives_the_same_models(whole: Path, teacher_folder: Path, tmp_path: Path) -> None:
    run_recipe(
        small_recipe(
            tmp_path, teacher_folder, jobs=2, control_seeds=[], baselines={}, evaluate={"batch_size": 4}
        ),
    )
    for name in ("realign/ratio-2", "realign/ratio-4", "post-train-2", "post-train-4"):
        one, two = (f / "run" / "seed-0" / name / "model.safetensors" for f in (whole, tmp_path))
        assert one.read_bytes() == two.read_bytes(), name
    assert "realign: students at" in (tmp_path / "run" / "logs" / "realign-seed-0.log").read_text()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failing_step_is_named(teacher_folder: Path, tmp_path: Path, jobs: int) -> None:
    changes = {"realign": {"ratios": [2], "max_length": 3, "use_cpu": True}, "jobs": jobs, "baselines": {}}
    recipe = small_recipe(tmp_path, teacher_folder, **changes)
    with pytest.raises(ValueError, match="more than max_length 3") as caught:
        run_recipe(recipe)
    if jobs == 2:
        assert isinstance(caught.value, PipelineError)
        assert "realign seed 0" in str(caught.value)
        assert "realign-seed-0.log" in str(caught.value)


def test_another_recipe_in_the_same_folder_is_refused(teacher_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "data" / "train-seed-0"
    folder.mkdir(parents=True)
    record = {"stage": "synthesize", "status": "done", "inputs": {}, "settings": {"records": 3}, "seed": 0}
    (folder / "stage.json").write_text(json.dumps(record))
    with pytest.raises(StageError, match=r"settings\.records \(there 3, asked 4\)"):
        run_recipe(small_recipe(tmp_path, teacher_folder))


def test_every_step_waits_only_for_earlier_ones(teacher_folder: Path, tmp_path: Path) -> None:
    sections = yaml.safe_load(small_recipe(tmp_path, teacher_folder, seeds=[0, 1, 2]).read_text())
    steps = plan(build(Recipe, sections))
    names = [step.name for step in steps]
    assert len(names) == len(set(names))
    for number, step in enumerate(steps):
        assert set(step.after) <= set(steps[:number])
    queue, started = StepQueue(steps), []
    while queue:  # one at a time, steps start in the order of the plan
        started.append(queue.ready()[0])
        queue.start(started[-1])
        queue.finish(started[-1])
    assert started == steps
    assert sum(name.startswith("post-train") for name in names) == 6


def test_ready_steps_come_in_the_order_of_the_plan() -> None:
    first, other = Step("first", print), Step("other", print)
    long, last = Step("long", print, after=(first,)), Step("last", print, after=(first, other))
    queue = StepQueue([first, long, other, last])
    assert queue.ready() == [first, other]
    queue.start(other)
    queue.finish(other)
    assert queue.ready() == [first]
    queue.start(first)
    assert queue and not queue.ready()
    queue.finish(first)
    assert queue.ready() == [long, last]
    with pytest.raises(ValueError, match="'last' depends on 'other', which is not in the plan"):
        StepQueue([first, last])


def test_the_former_name_of_the_baselines_is_accepted_with_a_warning(
    teacher_folder: Path, tmp_path: Path, log: Callable[[], str]
) -> None:
    path = small_recipe(tmp_path, teacher_folder)
    asked = load_recipe(path)
    assert not log()
    path.write_text(path.read_text().replace("baselines:", "peers:"))
    assert load_recipe(path) == asked
    warned = log()
    assert "peers is now called baselines" in warned and "\n" not in warned
    both = small_recipe(tmp_path, teacher_folder, peers={})
    with pytest.raises(RecipeError, match="keep baselines only"):
        load_recipe(both)


def answering_a(teacher: Path, folder: Path) -> Path:
    """A copy of a teacher that answers "A" to everything."""
    shutil.copytree(teacher, folder)
    newline, letter, end = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(
        ["\n", "A", "<|im_end|>"]
    )
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name].zero_()  # what comes next depends on the last token alone
    (head,), (embedding,) = (
        [w for n, w in weights.items() if n.endswith(key)]
        for key in ("lm_head.weight", "embed_tokens.weight")
    )
    head.zero_()
    head[letter], head[end] = embedding[newline], embedding[letter]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_stage_1_reads_what_the_teacher_answered(teacher_folder: Path, tmp_path: Path) -> None:
    """Each seed draws pages of its own; the teacher's answers replace the true ones."""
    brief = answering_a(teacher_folder, tmp_path / "brief")
    changes = {
        "seeds": [0, 1],
        "control_seeds": [],
        "baselines": {},
        "synthesize": {"train": 4, "realign": 4, "test": 4},
    }
    run_recipe(small_recipe(tmp_path, brief, **changes))
    data = tmp_path / "run" / "data"
    pages = {
        name: list(SampleFolder(data / name)) for name in ("realign-seed-0", "realign-seed-1", "train-seed-0")
    }
    assert {sample.task for sample in pages["realign-seed-0"]} == set(OCR_TASKS)
    assert {sample.task for sample in pages["train-seed-0"]} - set(OCR_TASKS)
    truth = {s.id: s.messages[1]["content"] for s in SampleFolder(data / "realign-seed-0-unlabelled")}
    assert [sample.messages[1]["content"] for sample in pages["realign-seed-0"]] == ["A"] * 4
    assert "A" not in truth.values()
    first, second = (pages[name][0].images[0].tobytes() for name in ("realign-seed-0", "realign-seed-1"))
    assert first != second
    losses = [
        json.loads(line) for line in (tmp_path / "run/seed-1/realign/losses.jsonl").read_text().splitlines()
    ]
    assert len(losses) == 2


def test_every_baseline_at_every_share_and_at_equal_cost(teacher_folder: Path, tmp_path: Path) -> None:
    """No baseline is run twice alike; what cannot be kept in so few layers is left out with its reason."""
    methods = ["fastv", "pyramiddrop", "sparsevlm", "divprune", "random"]
    section = {"methods": methods, "keep": [0.5, 0.25], "layers": [1]}
    recipe = build(
        Recipe,
        yaml.safe_load(small_recipe(tmp_path, teacher_folder, seeds=[0, 1], baselines=section).read_text()),
    )
    found, left_out = list_baselines(recipe)
    used = [baseline.method for baseline in found]
    depth = AutoConfig.from_pretrained(teacher_folder).text_config.num_hidden_layers
    assert len(set(used)) == len(found) == len({baseline.name for baseline in found})
    for name in ("random", "divprune"):
        assert sum(method.name == name for method in used) == (4 if name == "random" else 2)
    at_half = [m for m in used if m.layer_mean(depth) == pytest.approx(0.5, abs=0.03)]
    assert {m.name for m in at_half} == {
        m for m in methods if not any(m in r and "50%" in r for r in left_out)
    }
    assert any(reason.startswith("fastv, 0.25") for reason in left_out)


def test_compressors_are_compared(teacher_folder: Path, tmp_path: Path) -> None:
    """Each is trained alike, in folders of its own, and is a row of its own."""
    changes = {
        "control_seeds": [],
        "baselines": {},
        "realign": {"ratios": [2], "max_steps": 1, "per_device_train_batch_size": 2, "use_cpu": True},
        "post_train": {"max_steps": 1, "per_device_train_batch_size": 2, "use_cpu": True},
        "compressors": ["conv", "pooling"],
    }
    run_recipe(small_recipe(tmp_path, teacher_folder, **changes))
    found = gather(tmp_path / "run")
    labels = {j.variant.label for j in found.models}
    trained = ("student 2x", "student 2x, re-aligned only")
    assert labels == {"teacher", *(f"{name} ({kind})" for name in trained for kind in ("conv", "pooling"))}
    config = json.loads((tmp_path / "run/seed-0/pooling/post-train-2/config.json").read_text())
    assert config["compressor"] == "pooling"
    names = {row["name"] for row in found.bench[0]["contenders"]}
    assert names == {"teacher", "student 2x conv", "student 2x pooling"}
    for judged in found.find("post-train"):
        timed = found.timing(judged.variant)
        assert timed is not None and timed["name"] == f"student 2x {judged.variant.compressor}"


def test_wrong_recipes(teacher_folder: Path, tmp_path: Path) -> None:
    for changes, words in (
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [1, 1]}, "each once"),
        ({"jobs": 0}, "jobs and threads"),
        ({"synthesize": {"train": 4}}, "missing --test"),
        ({"baselines": {"metods": []}}, "did you mean methods"),
        ({"relign": {}}, "did you mean realign"),
        ({"compressors": ["conv", "kohv"]}, "'kohv' is unknown"),
        ({"compressors": ["conv", "conv"]}, "each once"),
    ):
        with pytest.raises(RecipeError, match=words):
            run_recipe(small_recipe(tmp_path, teacher_folder, **changes))
