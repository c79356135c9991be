"""The merge stage on variants of the embedded teacher: weights found, runs killed and gone on with, splits refused."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

import fcot_vl
from fcot_vl.common.errors import CheckpointError
from fcot_vl.common.stage import StageError
from fcot_vl.data.dataset import write_shard
from fcot_vl.evaluate.evaluator import Evaluator
from fcot_vl.merge.coalitions import FILE, SCRATCH, CoalitionScore
from fcot_vl.merge.config import MergeConfig
from fcot_vl.merge.shapley import exact, weights
from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.stages import evaluate as runner
from fcot_vl.stages.evaluate import evaluate
from fcot_vl.stages.merge import _Run, merge
from fcot_vl.synthesize.minidoc import make_sample

SEVEN = f"{shlex.quote(sys.executable)} -c \"print('so'); print(7)\" {{model}}"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    """The embedded teacher and three steps away from it, of growing size."""
    teacher, folders = tiny_teacher_path(), []
    before = tensors(teacher)
    for number in range(4):
        folder = tmp_path_factory.mktemp("models") / f"step-{number}"
        shutil.copytree(teacher, folder, ignore=shutil.ignore_patterns("__*", "*.py"))
        draw = torch.Generator().manual_seed(number)
        moved = {
            name: (
                t.float() + 0.01 * number * t.float().std(correction=0) * torch.randn(t.shape, generator=draw)
            )
            for name, t in before.items()
        }
        after = {name: moved[name].to(t.dtype) for name, t in before.items()}
        save_file(after, folder / "model.safetensors", {"format": "pt"})
        folders.append(folder)
    return folders


def shapley(models: list[Path], output: Path, **more) -> MergeConfig:
    more = more or {"score_command": SEVEN}
    return MergeConfig(models[1:], output, models[0], "shapley", **more)


@pytest.fixture
def scored(monkeypatch):
    """A score from the weights' content instead of the command, and a log of the models that were scored."""
    seen = []

    def score(run: _Run, model: Path, scratch: Path) -> CoalitionScore:
        kept = sorted(p.name for p in model.iterdir())
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(kept)
        weight = next(t for name, t in tensors(model).items() if name.endswith("q_proj.weight")).double()
        seen.append(weight)
        base = next(t for name, t in tensors(run.base.folder).items() if name.endswith("q_proj.weight"))
        return CoalitionScore(float(weight.sub(base).abs().sum()), {"a": 1.0})

    monkeypatch.setattr(_Run, "_score", score)
    return seen


def test_a_merged_model_loads_and_copies_give_the_model_back(models, tmp_path):
    out = merge(MergeConfig([models[1]] * 3, tmp_path / "same"))
    assert (out / "model.safetensors").read_bytes() == (models[1] / "model.safetensors").read_bytes()
    out = merge(MergeConfig(models[1:], tmp_path / "average"))
    model, info = AutoModelForImageTextToText.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()) and fcot_vl.FCoTVLProcessor.from_pretrained(out)
    assert (
        AutoProcessor.from_pretrained(models[1]).chat_template
        == AutoProcessor.from_pretrained(out).chat_template
    )
    name, merged = next((n, p) for n, p in tensors(out).items() if n.endswith("q_proj.weight"))
    mean = sum(tensors(folder)[name].float() for folder in models[1:]) / 3
    torch.testing.assert_close(merged, mean.to(merged.dtype))
    assert model.dtype == merged.dtype
    record = json.loads((out / "merge.json").read_text())
    assert record["method"] == "average" and record["weights_chosen_on"] == []
    assert len({row["content"] for row in record["checkpoints"]}) == 3
    written = (out / "model.safetensors").stat().st_mtime_ns
    assert merge(MergeConfig(models[1:], out)) == out  # finished
    assert (out / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(StageError, match=r"settings\.method"):
        merge(MergeConfig(models[1:], out, models[0], "task-arithmetic"))


def test_shapley_scores_every_coalition_and_weighs_by_worth(models, tmp_path, scored):
    out = merge(shapley(models, tmp_path / "out"))
    assert len(scored) == 8 and not (out / SCRATCH).exists() and (out / "merge.png").stat().st_size > 10_000
    record = json.loads((out / "merge.json").read_text())
    worth = {frozenset(row["members"]): row["score"] for row in record["coalitions"]}
    assert len(worth) == 8 and worth[frozenset()] == 0  # the base itself
    values = exact(3, lambda coalition: worth[frozenset(p + 1 for p in coalition)])
    rows = record["checkpoints"]
    assert [row["shapley"] for row in rows] == pytest.approx(values)
    assert [row["weight"] for row in rows] == pytest.approx(weights(values))
    assert rows[0]["weight"] < rows[1]["weight"] < rows[2]["weight"]  # a larger step scores higher
    name = next(n for n in tensors(out) if n.endswith("q_proj.weight"))
    base = tensors(models[0])[name].float()
    expected = base + sum(
        r["weight"] * (tensors(m)[name].float() - base) for r, m in zip(rows, models[1:], strict=True)
    )
    torch.testing.assert_close(tensors(out)[name].float(), expected, rtol=0.01, atol=1e-4)


def test_the_order_of_checkpoints_changes_nothing_and_nothing_is_scored_again(models, tmp_path, scored):
    out = merge(shapley(models, tmp_path / "out"))
    first = json.loads((out / "merge.json").read_text())
    for order in itertools.islice(itertools.permutations(models[1:]), 1, None, 2):
        other = tmp_path / "-".join(folder.name for folder in order)
        other.mkdir()
        shutil.copy(out / FILE, other)
        merge(shapley([models[0], *order], other))
        assert len(scored) == 8
        assert (other / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
        again = json.loads((other / "merge.json").read_text())
        by_content = {row["content"]: row["weight"] for row in first["checkpoints"]}
        assert by_content == {row["content"]: row["weight"] for row in again["checkpoints"]}
    assert merge(shapley([models[0], *reversed(models[1:])], out)) == out  # the same folder: finished


@pytest.mark.faults
def test_a_killed_run_goes_on_and_scores_nothing_twice(models, tmp_path, scored, monkeypatch):
    score, models_scored = _Run._score, scored

    def dies(run: _Run, model: Path, scratch: Path) -> CoalitionScore:
        if len(models_scored) == 5:
            raise KeyboardInterrupt
        return score(run, model, scratch)

    monkeypatch.setattr(_Run, "_score", dies)
    with pytest.raises(KeyboardInterrupt):
        merge(shapley(models, tmp_path / "out"))
    rows = (tmp_path / "out" / FILE).read_text()
    assert len(rows.splitlines()) == 5
    (tmp_path / "out" / FILE).write_text(rows + '{"key": "half')  # as a power cut leaves it
    (tmp_path / "out" / SCRATCH / "model").mkdir(parents=True)
    monkeypatch.setattr(_Run, "_score", score)
    out = merge(shapley(models, tmp_path / "out"))
    assert len(scored) == 8 and len((out / FILE).read_text().splitlines()) == 8
    whole = merge(shapley(models, tmp_path / "whole"))
    assert (whole / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_permutations_give_error_bars(models, tmp_path, scored):
    out = merge(shapley(models, tmp_path / "out", score_command=SEVEN, permutations=4, seed=1))
    record = json.loads((out / "merge.json").read_text())
    assert all(row["standard_error"] >= 0 for row in record["checkpoints"])
    assert sum(row["shapley"] for row in record["checkpoints"]) == pytest.approx(
        record["coalitions"][-1]["score"] - record["coalitions"][0]["score"]
    )
    nine = [models[1]] * 9
    with pytest.raises(ValueError, match="512 coalitions to score: give --permutations"):
        MergeConfig(nine, tmp_path, models[0], "shapley", score_command=SEVEN)


def test_the_base_is_the_last_checkpoint(models, tmp_path, scored):
    """The paper's base (below Eq. 4): the model of the empty coalition is the final checkpoint."""
    out = merge(MergeConfig(models[1:], tmp_path / "shapley", method="shapley", score_command=SEVEN))
    record = json.loads((out / "merge.json").read_text())
    assert record["base"]["folder"] == str(models[-1])
    assert record["base"]["content"] == record["checkpoints"][-1]["content"]
    out = merge(MergeConfig(models[1:], tmp_path / "arithmetic", method="task-arithmetic"))
    name = next(n for n in tensors(out) if n.endswith("q_proj.weight"))
    one, two, last = (tensors(folder)[name].float() for folder in models[1:])
    expected = last + 0.5 * (one - last) + 0.5 * (two - last)
    torch.testing.assert_close(tensors(out)[name].float(), expected, rtol=0.01, atol=1e-4)


def test_a_command_scores_any_model(models, tmp_path, log):
    """Here every model scores the same, so no checkpoint is worth anything: the last one is kept, which is said."""
    two = [models[0], models[1], models[2]]
    out = merge(shapley(two, tmp_path / "seven"))
    assert "nothing was merged: the result is the last checkpoint" in log()
    record = json.loads((out / "merge.json").read_text())
    assert "nothing was merged" in record["note"]
    assert [row["weight"] for row in record["checkpoints"]] == [0, 1]
    for name, tensor in tensors(models[2]).items():
        torch.testing.assert_close(tensors(out)[name], tensor, rtol=1e-2, atol=1e-5)
    rows = [json.loads(line) for line in (tmp_path / "seven" / FILE).read_text().splitlines()]
    assert [row["score"] for row in rows] == [7, 7, 7, 7]
    python = shlex.quote(sys.executable)
    for command, said in (
        (f'{python} -c "print(1/0)" {{model}}', r"exit code 1.*score\.log"),
        (f"{python} -c \"print('many')\" {{model}}", "it printed 'many'"),
        (f"{python} -c \"print('nan')\" {{model}}", "score of a coalition is nan"),
        ("no-such-program {model}", "does not start"),
    ):
        folder = tmp_path / str(abs(hash(said)))
        with pytest.raises(CheckpointError, match=said):
            merge(shapley(two, folder, score_command=command))
        assert not (folder / SCRATCH).exists() and not (folder / "model.safetensors").exists()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    write_shard(folder / "a.parquet", [make_sample("validation", 0, 0, "forms")])
    return folder


def test_the_split_that_chose_the_weights_is_not_the_split_reported(models, pages, tmp_path, monkeypatch):
    scores = iter([0.1, 0.5, 0.3, 0.6])

    class Asked(Evaluator):
        """The model answers, but its scores are ours."""

        def __init__(self, *given):
            config = SimpleNamespace(compressor=None, visual_positions=None)
            self.generator = SimpleNamespace(
                compress_ratio=1, model=SimpleNamespace(config=config), costs=lambda questions: {}
            )
            self.benchmark, self.questions, self.skips = None, [], False

        def run(self, files, batch_size, processes):
            pass

        def finish(self, files):
            return [{"task": "forms", "score": next(scores), "density": 1.0, "id": "1"}]

    monkeypatch.setattr(runner, "Evaluator", Asked)
    monkeypatch.setattr(runner, "load_for_inference", lambda path: (None, None))
    out = merge(shapley(models[:3], tmp_path / "out", data=pages))
    record = json.loads((out / "merge.json").read_text())
    assert all(row["tasks"] == {"forms": row["score"]} for row in record["coalitions"])
    assert {row["score"] for row in record["coalitions"]} == {0.1, 0.5, 0.3, 0.6}
    assert record["weights_chosen_on"] == [record["scored_by"]["data"]]
    with pytest.raises(ValueError, match=r"chosen on these samples.*evaluate on another split"):
        evaluate(out, pages, tmp_path / "evaluated")
    # A merge of a merge remembers, and so does its record when it is merged again.
    further = merge(MergeConfig([out, models[3]], tmp_path / "further"))
    with pytest.raises(ValueError, match="chosen on these samples"):
        evaluate(further, pages, tmp_path / "evaluated")
    other = tmp_path / "other"
    other.mkdir()
    write_shard(other / "a.parquet", [make_sample("test", 0, 0, "forms")])
    scores = iter([0.4])
    result = evaluate(out, other, tmp_path / "evaluated")
    assert result["merged"] == "shapley" and result["mean_over_tasks"] == 0.4
    (out / "merge.json").write_text("{}")
    with pytest.raises(ValueError, match="not the file of a merge"):
        evaluate(out, other, tmp_path / "again")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "best"}, "unknown --method 'best'; choose from average"),
        ({"method": "ties"}, "give --base"),
        ({"method": "weighted"}, "needs --weights"),
        ({"method": "weighted", "weights": (1,)}, "1 numbers for 2 checkpoints"),
        ({"method": "weighted", "weights": (1, -1)}, "sum to 0"),
        ({"weights": (1, 1)}, "--weights is not used by --method average"),
        ({"base": Path("base")}, "--base is not used by --method average"),
        ({"method": "ties", "base": Path("b"), "density": 0}, "--density is the share"),
        ({"method": "ties", "base": Path("b"), "weights": (1, -1)}, "votes for the sign"),
        ({"method": "shapley", "base": Path("b")}, "either --data or --score-command"),
        ({"method": "shapley", "base": Path("b"), "score_command": "x"}, r"must contain \{model\}"),
        ({"dtype": "int8"}, "unknown --dtype"),
        ({"output": Path("two")}, "is one of the models to merge"),
        ({"checkpoints": [Path("one")]}, "two or more checkpoints, got 1"),
    ],
)
def test_settings_that_do_not_go_together(settings, said):
    with pytest.raises(ValueError, match=said):
        MergeConfig(**{"checkpoints": [Path("one"), Path("two")], "output": Path("out"), **settings})
