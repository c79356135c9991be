"""Merging: the arithmetic against mergekit's, and files that are refused, streamed, sharded and never half there."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fcot_vl.common.errors import CheckpointError
from fcot_vl.merge import streaming as stream
from fcot_vl.merge.checkpoint import INDEX, Checkpoint
from fcot_vl.merge.compatibility import same_architecture
from fcot_vl.merge.methods import Rule, dare, generator, linear, task_arithmetic, ties, trim_threshold
from fcot_vl.merge.streaming import content_hash, merge_folder

RECORDED = Path(__file__).parents[2] / "data" / "mergekit"
WEIGHTS, SCALE, DENSITY = (0.5, 0.3, 0.9), 0.5, 0.3  # as tools/record_mergekit.py
CONFIG = {"model_type": "llama", "hidden_size": 8, "text": {"rope_theta": 1e4}, "dtype": "float32"}


def write(folder: Path, tensors: dict, config: dict | None = None, shards: int = 1) -> Path:
    """A model folder of these tensors, in one file or several with an index."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    listed = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[number::shards]}
        save_file(part, folder / file, {"format": "pt"})
        listed |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    return folder


def tensors(seed: int, dtype: torch.dtype = torch.float32) -> dict:
    draw = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(5, 7, generator=draw).to(dtype),
        "b": torch.randn(33, generator=draw).to(dtype),
        "c": torch.randn((), generator=draw).to(dtype),
        "empty": torch.zeros(0, 4, dtype=dtype),
        "steps": torch.arange(5),
    }


def read(folder: Path) -> dict:
    found = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


@pytest.fixture
def small_pieces(monkeypatch):
    """Tensors go through in pieces of eight values."""
    monkeypatch.setattr(stream, "PIECE", 8)


# ------------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    ("dtype", "recorded", "method"),
    [
        *(("float32", r, m) for r, m in (("linear", "weighted"), ("task_arithmetic",) * 2, ("ties",) * 2)),
        *(("bfloat16", r, m) for r, m in (("linear", "weighted"), ("task_arithmetic",) * 2)),
    ],
)
@pytest.mark.usefixtures("small_pieces")
def test_equals_mergekit(tmp_path, dtype, recorded, method):
    """To 1e-6, from files to files; mergekit's results were recorded by tools/record_mergekit.py."""
    every = load_file(RECORDED / f"{dtype}.safetensors")

    def of(model):
        return {k.partition("/")[2]: v for k, v in every.items() if k.startswith(f"{model}/")}

    base, *checkpoints = (Checkpoint(write(tmp_path / m, of(m))) for m in ("base", "1", "2", "3"))
    out = tmp_path / "out"
    out.mkdir()
    rule = Rule(method.replace("_", "-"), WEIGHTS, SCALE, DENSITY)
    merge_folder(None if method == "weighted" else base, checkpoints, out, rule, torch.float32)
    expected = of(recorded)
    assert read(out).keys() == expected.keys()
    for name, tensor in read(out).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6)


def test_by_hand():
    base = torch.tensor([1.0, 2.0, 3.0])
    one, two = torch.tensor([2.0, 2.0, 1.0]), torch.tensor([4.0, 1.0, 3.0])
    assert linear([one, two], [1, 1]).tolist() == [3, 1.5, 2]
    assert linear([one, two], [1, 3]).tolist() == [3.5, 1.25, 2.5]
    assert task_arithmetic(base, [one, two], [1, 1], 0.5).tolist() == [3, 1.5, 2]  # the sum of both, halved
    assert task_arithmetic(base, [one, two], [0.25, 0.75]).tolist() == [3.5, 1.25, 2.5]
    # TIES: the second values (0 and -1) keep -1; the first (1 and 3) their mean; the third (-2 and 0) keep -2
    assert ties(base, [one, two], [1, 1], 1, [0, 0]).tolist() == [3, 1, 1]
    assert ties(base, [one, two], [1, 1], 1, [1.5, 1.5]).tolist() == [4, 2, 1]  # 1 and -1 are trimmed
    opposite = [torch.tensor([3.0]), torch.tensor([-1.0])]
    assert ties(torch.zeros(1), opposite, [1, 1], 1, [0, 0]).tolist() == [3]
    assert ties(torch.zeros(1), opposite, [1, 4], 1, [0, 0]).tolist() == [-1]  # the heavier sign wins
    assert trim_threshold(torch.tensor([0.1, -5, 2, 3, -4]), 0.4) == 4


@given(st.integers(1, 200), st.floats(0.01, 1))
@settings(max_examples=60, deadline=None)
def test_the_threshold_keeps_its_share(n, density):
    values = torch.randn(n, generator=torch.Generator().manual_seed(n))
    kept = (values.abs() >= trim_threshold(values.clone(), density)).sum().item()
    assert kept == max(1, int(density * n))


def test_dare_keeps_the_mean_drops_the_rest_and_depends_on_seed_and_name_alone():
    base, one = torch.zeros(200_000), torch.ones(200_000)
    dropped = dare(base, [one], [1], 1, 0.25, [generator(0, "w", 0)])
    assert set(dropped.unique().tolist()) == {0, 4}
    assert abs(dropped.mean().item() - 1) < 0.02  # standard deviation 0.004
    assert torch.equal(dropped, dare(base, [one], [1], 1, 0.25, [generator(0, "w", 0)]))
    for other in (generator(1, "w", 0), generator(0, "v", 0), generator(0, "w", 1)):
        assert not torch.equal(dropped, dare(base, [one], [1], 1, 0.25, [other]))
    assert torch.equal(dare(base, [one], [1], 0.5, 1, [generator(0, "w", 0)]), one / 2)


@pytest.mark.parametrize("method", ["average", "weighted", "task-arithmetic", "shapley", "ties", "dare"])
def test_pieces_change_nothing(tmp_path, monkeypatch, method):
    base, one, two = (Checkpoint(write(tmp_path / str(i), tensors(i))) for i in range(3))
    rule = Rule(method, (0.7, 0.6), 0.8, 0.5, seed=3)
    for size in (1 << 20, 16):
        monkeypatch.setattr(stream, "PIECE", size)
        (tmp_path / f"out{size}").mkdir()
        needs = None if method in ("average", "weighted") else base
        merge_folder(needs, [one, two], tmp_path / f"out{size}", rule)
    whole, cut = read(tmp_path / f"out{1 << 20}"), read(tmp_path / "out16")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert not torch.equal(whole["a"], read(tmp_path / "0")["a"])


# ------------------------------------------------------------------------------------------------------------ files


@pytest.mark.usefixtures("small_pieces")
def test_shards_dtypes_and_what_lies_beside(tmp_path):
    """The reference's shards and dtypes, though the others lie in other files and are wider; no pickle comes along."""
    mixed = tensors(0, torch.bfloat16) | {"b": tensors(0)["b"]}
    first = write(tmp_path / "first", mixed, shards=3)
    second = write(tmp_path / "second", tensors(1))
    for name in ("tokenizer.json", "tokenizer.bin", "merges.txt", "vocab.pkl", "optimizer.pt", "notes.txt"):
        (first / name).write_text(name)
    out = tmp_path / "out"
    out.mkdir()
    seen = []
    hashes = merge_folder(
        None, [Checkpoint(first), Checkpoint(second)], out, Rule("average", (1, 1)), None, seen.append
    )
    assert sum(seen) == Checkpoint(first).bytes
    assert hashes == [content_hash(Checkpoint(first)), content_hash(Checkpoint(second))]
    assert {p.name for p in out.iterdir()} == {
        *(p.name for p in first.glob("*.safetensors")),
        *(INDEX, "config.json", "tokenizer.json", "merges.txt"),
    }
    assert (
        json.loads((out / INDEX).read_text())["weight_map"]
        == json.loads((first / INDEX).read_text())["weight_map"]
    )
    merged, before, after = read(out), read(first), read(second)
    for name, tensor in merged.items():
        assert (tensor.dtype, tensor.shape) == (before[name].dtype, before[name].shape)
        if tensor.is_floating_point():
            assert torch.equal(tensor, ((before[name].float() + after[name]) / 2).to(tensor.dtype))
    with safe_open(next(out.glob("*.safetensors")), "pt") as file:
        assert file.metadata() == {"format": "pt"}
    again = tmp_path / "again"
    again.mkdir()
    merge_folder(None, [Checkpoint(first), Checkpoint(second)], again, Rule("average", (1, 1)), torch.float16)
    assert {t.dtype for t in read(again).values()} == {torch.float16, torch.int64}
    assert json.loads((again / "config.json").read_text())["dtype"] == "float16"


def test_the_hash_is_of_content(tmp_path):
    one = Checkpoint(write(tmp_path / "one", tensors(0)))
    cut = Checkpoint(write(tmp_path / "cut", tensors(0), shards=2))
    other = Checkpoint(write(tmp_path / "other", tensors(0) | {"steps": torch.arange(1, 6)}))
    assert content_hash(one) == content_hash(cut) != content_hash(other)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_copies_give_the_checkpoint_back_bit_for_bit(tmp_path, n):
    odd = tensors(0) | {"mask": torch.tensor([float("-inf"), 0.1, -0.0]), "flag": torch.tensor([True, False])}
    copies = [Checkpoint(write(tmp_path / str(i), odd)) for i in range(n)]
    for method in ("average", "task-arithmetic", "ties", "dare"):
        out = tmp_path / method
        out.mkdir()
        merge_folder(
            copies[0] if method != "average" else None, copies[1:], out, Rule(method, (1.0,) * (n - 1))
        )
        assert (out / "model.safetensors").read_bytes() == (tmp_path / "0" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a": None}, "has no a, which"),
        ({"extra": torch.zeros(1)}, "has extra, which"),
        ({"a": torch.zeros(7, 5)}, r"a has the shape \[7, 5\], in .*first \[5, 7\]"),
        ({"steps": torch.zeros(5)}, "steps is F32, in .*first I64"),
    ],
)
def test_other_tensors_are_refused_by_name(tmp_path, change, said):
    first = Checkpoint(write(tmp_path / "first", tensors(0)))
    changed = {k: v for k, v in (tensors(1) | change).items() if v is not None}
    with pytest.raises(CheckpointError, match=f"second: {said}"):
        same_architecture(first, [Checkpoint(write(tmp_path / "second", changed))])


def test_other_configurations(tmp_path):
    first = Checkpoint(write(tmp_path / "first", tensors(0)))

    def check(name, **change):
        return same_architecture(first, [Checkpoint(write(tmp_path / name, tensors(1), CONFIG | change))])

    assert check("harmless", dtype="bfloat16", transformers_version="9") == []
    (note,) = check("told", eos_token_id=7)
    assert "eos_token_id is 7" in note and "null, which is kept" in note
    for key, value in (("model_type", "qwen2"), ("compress_ratio", 4), ("text", {"rope_theta": 1e6})):
        with pytest.raises(CheckpointError, match=f"not the same model: .*{key}"):
            check(key, **{key: value})
    with pytest.raises(CheckpointError, match="is quantized"):
        check("quantized", quantization_config={"bits": 4})


def test_what_cannot_be_averaged_is_refused_and_leaves_nothing(tmp_path):
    first = write(tmp_path / "first", tensors(0))
    for name, change, said in (
        ("whole", {"steps": torch.arange(1, 6)}, r"whole: steps \(I64\) differs"),
        ("nan", {"b": torch.full((33,), float("nan"))}, "b: the merged values are not all finite"),
    ):
        out = tmp_path / f"out-{name}"
        out.mkdir()
        other = Checkpoint(write(tmp_path / name, tensors(1) | change))
        with pytest.raises(CheckpointError, match=said):
            merge_folder(None, [Checkpoint(first), other], out, Rule("average", (1, 1)))
        assert list(out.iterdir()) == []


def test_broken_folders_are_refused_with_the_file(tmp_path):
    whole = write(tmp_path / "whole", tensors(0), shards=2)
    shard = next(whole.glob("*.safetensors"))
    content = shard.read_bytes()
    for damage in (content[:-1], content + b"x", b"\xff" * 8 + content[8:], content[:20], b""):
        shard.write_bytes(damage)
        with pytest.raises(CheckpointError, match=f"{shard.name}: not a complete safetensors file"):
            Checkpoint(whole)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{shard.name}: missing, though"):
        Checkpoint(whole)
    (whole / INDEX).write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(CheckpointError, match="no safetensors file of this folder"):
        Checkpoint(whole)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        Checkpoint(pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="pickle files"):
        Checkpoint(pickled)
    with pytest.raises(CheckpointError, match="no such folder"):
        Checkpoint(tmp_path / "nowhere")


def test_a_file_cut_while_it_is_read(tmp_path):
    one, two = (Checkpoint(write(tmp_path / str(i), tensors(i))) for i in range(2))
    path = tmp_path / "1" / "model.safetensors"
    os.truncate(path, path.stat().st_size - 50)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot be read \(the file ends"):
        merge_folder(None, [one, two], tmp_path / "out", Rule("average", (1, 1)))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.faults
@pytest.mark.parametrize("share", [0.1, 0.9], ids=["header", "values"])
def test_a_full_disk_says_so_and_leaves_nothing(tmp_path, share):
    """For a moment files may grow to a share of the result only."""
    one, two = (Checkpoint(write(tmp_path / str(i), tensors(i))) for i in range(2))
    (tmp_path / "out").mkdir()
    room = int(share * (tmp_path / "0" / "model.safetensors").stat().st_size)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(
            CheckpointError, match=r"model\.safetensors: could not be written .*Is the disk full\?"
        ):
            merge_folder(None, [one, two], tmp_path / "out", Rule("average", (1, 1)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "out").iterdir()) == []
