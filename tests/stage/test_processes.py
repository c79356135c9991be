"""Two gloo processes against one: DDP and FSDP2 give the same losses, and a run may go on with another number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from training_case import weights, write_pages

from fcot_vl.data.dataset import SampleFolder, write_shard

TESTS = Path(__file__).parents[1]
# Five packs: the last step of an epoch is short, and one process has a blank where the other has the last pack.
PACKED = {"packing": True, "max_length": 155, "num_train_epochs": 2, "warmup_steps": 0, "save_steps": 2}
ONE = {**PACKED, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
TWO = {**PACKED, "per_device_train_batch_size": 1}


def run(
    processes: int, stage: str, folder: Path, model: Path, data: Path, code: int = 0, **overrides: Any
) -> Path:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(TESTS / "helpers"), str(TESTS.parent), *filter(None, before)]
    )
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    arguments = [stage, folder, model, data, json.dumps(overrides)]
    ran = subprocess.run(
        [
            sys.executable,
            *(launch if processes > 1 else []),
            TESTS / "helpers" / "process_worker.py",
            *arguments,
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert bool(ran.returncode) == bool(code), ran.stderr[-3000:]
    return folder


def losses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def pages_read(folder: Path) -> list[list[str]]:
    """Pages of each step, sorted, over all processes and runs."""
    steps: dict[int, list[str]] = {}
    for path in folder.parent.glob(f"{folder.name}.*.pages"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            steps.setdefault(row["step"], []).extend(row["pages"])
    return [sorted(steps[step]) for step in sorted(steps)]


def assert_same_curve(one: Path, other: Path, names: tuple[str, ...]) -> None:
    """Every step's losses to 1e-4, relative: sums are taken in another order."""
    first, second = losses(one), losses(other)
    assert [row["step"] for row in first] == [row["step"] for row in second] == [1, 2, 3, 4, 5, 6]
    assert len({round(row[names[0]], 3) for row in first}) > 3, "the curve must move to be compared"
    for before, after in zip(first, second, strict=True):
        for name in names:
            assert after[name] == pytest.approx(before[name], rel=1e-4), (before["step"], name)


NAMES = tuple(f"ratio-{ratio}/{kind}" for ratio in (2, 4) for kind in ("kl", "ce", "agreement"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pages(tmp_path_factory.mktemp("processes") / "data")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, teacher_folder, data) -> Path:
    return run(1, "realign", tmp_path_factory.mktemp("alone") / "out", teacher_folder, data, **ONE)


def test_one_process_reads_every_page_once_an_epoch(alone) -> None:
    steps = pages_read(alone)
    every = sorted(f"page-{i}" for i in range(10))
    assert len(steps) == 6
    for epoch in (steps[:3], steps[3:]):
        assert sorted(page for step in epoch for page in step) == every


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_give_the_losses_of_one(tmp_path, alone, teacher_folder, data, sharding) -> None:
    extra = {"fsdp": True} if sharding == "fsdp" else {}
    both = run(2, "realign", tmp_path / "out", teacher_folder, data, **TWO, **extra)
    assert_same_curve(alone, both, NAMES)
    assert pages_read(both) == pages_read(alone)
    shards = json.loads((tmp_path / "out.1.pages").read_text().splitlines()[0])["shards"]
    assert (shards > 50) == (sharding == "fsdp"), "FSDP shards the frozen weights too"
    for ratio in (2, 4):
        found, want = weights(both / f"ratio-{ratio}"), weights(alone / f"ratio-{ratio}")
        assert found.keys() == want.keys()
        for name, tensor in want.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_a_run_on_two_processes_goes_on_with_one(tmp_path, alone, teacher_folder, data) -> None:
    """Stopped after step 5 of two processes, with a checkpoint at 4; one process then reads what was not read."""
    folder = run(2, "realign", tmp_path / "out", teacher_folder, data, code=7, stop_after=5, **TWO)
    assert (folder / "checkpoint-4").exists()
    run(1, "realign", folder, teacher_folder, data, **ONE)
    assert_same_curve(alone, folder, NAMES)
    for path in tmp_path.glob("out.*.pages"):  # step 5 was read twice: by both, and again after the resume
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        if path.name == "out.1.pages":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] < 5))
        else:
            last_start = max(i for i, row in enumerate(rows) if row["step"] == 5)
            kept = [row for i, row in enumerate(rows) if row["step"] < 5 or i >= last_start]
            path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    assert pages_read(folder) == pages_read(alone)


def test_a_sharded_run_goes_on_from_its_checkpoint(tmp_path, alone, teacher_folder, data) -> None:
    settings = {**TWO, "fsdp": True}
    folder = run(2, "realign", tmp_path / "out", teacher_folder, data, code=7, stop_after=5, **settings)
    assert (folder / "checkpoint-4" / "optimizer_0").exists() or (
        folder / "checkpoint-4" / "optimizer.bin"
    ).exists()
    run(2, "realign", folder, teacher_folder, data, **settings)
    assert_same_curve(alone, folder, NAMES)


def test_post_training_on_shards(tmp_path, teacher_folder, data) -> None:
    one = run(1, "post-train", tmp_path / "one", teacher_folder, data, **ONE)
    two = run(2, "post-train", tmp_path / "two", teacher_folder, data, fsdp=True, **TWO)
    assert_same_curve(one, two, ("ce",))
    found, want = weights(two), weights(one)
    assert found.keys() == want.keys()
    for name, tensor in want.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_process_may_read_text_alone_while_the_other_reads_a_page(
    tmp_path, teacher_folder, data, sharding
) -> None:
    """It computes a blank image times zero; otherwise the other process would wait for its part of the ViT."""
    samples = list(SampleFolder(data))
    for sample in samples[::2]:
        sample.images = []
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    write_shard(mixed / "a.parquet", samples)
    settings = {"packing": False, "per_device_train_batch_size": 1, "max_steps": 6, "warmup_steps": 0}
    extra = {"fsdp": True} if sharding == "fsdp" else {}
    two = run(2, "post-train", tmp_path / "two", teacher_folder, mixed, **settings, **extra)
    read = [
        [json.loads(line)["pages"] for line in (tmp_path / f"two.{rank}.pages").read_text().splitlines()]
        for rank in (0, 1)
    ]
    text = {sample.id for sample in samples[::2]}
    assert any((set(first) <= text) != (set(second) <= text) for first, second in zip(*read, strict=True))
    one = run(
        1, "post-train", tmp_path / "one", teacher_folder, mixed, **settings, gradient_accumulation_steps=2
    )
    assert_same_curve(one, two, ("ce",))
    found, want = weights(two), weights(one)
    for name, tensor in want.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("zero", [2, 3])
@pytest.mark.parametrize("stage", ["realign", "post-train"])
def test_deepspeed_gives_the_losses_of_one_process(tmp_path, teacher_folder, data, stage, zero) -> None:
    """Also over a resume. DeepSpeed is no dependency: this runs where it is installed (`pip install deepspeed`)."""
    pytest.importorskip("deepspeed")
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    config = {
        "zero_optimization": {"stage": zero},
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": "auto",
        **dict.fromkeys(sizes, "auto"),
    }
    (tmp_path / "zero.json").write_text(json.dumps(config))
    # It clips all students together, each alone otherwise: one student is the same either way.
    extra = {"ratios": [2]} if stage == "realign" else {}
    one = run(1, stage, tmp_path / "one", teacher_folder, data, **ONE, **extra)
    settings = {**TWO, **extra, "deepspeed": str(tmp_path / "zero.json")}
    two = run(2, stage, tmp_path / "two", teacher_folder, data, code=7, stop_after=5, **settings)
    run(2, stage, two, teacher_folder, data, **settings)
    assert_same_curve(one, two, ("ratio-2/ce",) if extra else ("ce",))
    part = "ratio-2" if extra else "."
    found, want = weights(two / part), weights(one / part)
    assert found.keys() == want.keys()
    for name, tensor in want.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-3, msg=name)
