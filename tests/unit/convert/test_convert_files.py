"""Shards, pickles, dtypes, and everything that makes a checkpoint unusable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from convert_case import assert_same_files, load
from safetensors.torch import load_file, save_file

from fcot_vl.common.errors import CheckpointError
from fcot_vl.stages.convert import convert


def in_shards(source: Path, count: int = 3) -> None:
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    listed = {}
    for number in range(count):
        file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        part = {name: tensor for i, (name, tensor) in enumerate(tensors.items()) if i % count == number}
        save_file(part, source / file)
        listed |= dict.fromkeys(part, file)
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))


@pytest.mark.faults
def test_shards_become_shards_and_a_cut_off_run_goes_on(
    source: Path, converted: Path, tmp_path: Path
) -> None:
    in_shards(source)
    out = convert(source, tmp_path / "out")
    want = load(converted).state_dict()
    for name, tensor in load(out).state_dict().items():
        assert torch.equal(tensor, want[name]), name
    record = json.loads((out / "stage.json").read_text())
    (out / "stage.json").write_text(json.dumps(record | {"status": "running"}))
    first, second = out / "model-00001-of-00003.safetensors", out / "model-00002-of-00003.safetensors"
    kept = first.stat().st_mtime_ns
    second.unlink()
    (out / "config.json").unlink()
    convert(source, out)
    assert first.stat().st_mtime_ns == kept and second.exists()
    load(out)


def test_bin_files_only_when_asked_for(source: Path, converted: Path, tmp_path: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save(tensors, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="--allow-bin"):
        convert(source, tmp_path / "out")
    out = convert(source, tmp_path / "out", allow_bin=True)
    assert_same_files(out / "model.safetensors", converted / "model.safetensors")


def test_dtypes_stay(source: Path, tmp_path: Path) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(tensors, source / "model.safetensors")
    out = convert(source, tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}


def change(source: Path, **changes: object) -> None:
    config = json.loads((source / "config.json").read_text()) | changes
    (source / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def missing_shard(source: Path) -> None:
    in_shards(source)
    (source / "model-00002-of-00003.safetensors").unlink()


def outside(source: Path) -> None:
    in_shards(source)
    index = source / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00002-of", "../model-00002-of"))


def truncated(source: Path) -> None:
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def with_tensors(source: Path, edit: Callable[[dict], object]) -> None:
    tensors = load_file(source / "model.safetensors")
    edit(tensors)
    save_file(tensors, source / "model.safetensors")


WQKV = "language_model.model.layers.1.attention.wqkv.weight"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (missing_shard, r"model-00002-of-00003.safetensors: missing"),
        (outside, r"no weight file of this folder"),
        (truncated, r"model.safetensors: not a complete safetensors file"),
        (lambda s: with_tensors(s, lambda t: t.pop("mlp1.1.bias")), r"no tensor for: model.multi_modal"),
        (lambda s: with_tensors(s, lambda t: t.update(extra=torch.ones(1))), r"does not have: extra"),
        (
            lambda s: with_tensors(s, lambda t: t.update({WQKV: torch.ones(90, 64)})),
            r"wqkv.weight \[90, 64\]",
        ),
        (lambda s: with_tensors(s, lambda t: t.update({"mlp1.1.bias": torch.ones(3)})), r"mlp1.1.bias \[3\]"),
        (lambda s: change(s, llm_config=None), "has no llm_config"),
        (
            lambda s: change(s, llm_config={"architectures": ["MambaForCausalLM"]}),
            "'MambaForCausalLM' is not supported",
        ),
        (lambda s: change(s, vision_config=None), "no vision_config"),
        (lambda s: change(s, ps_version="v1"), "ps_version 'v1'"),
        (lambda s: (s / "config.json").unlink(), "config.json: missing"),
        (lambda s: (s / "config.json").write_text("{"), "not readable as JSON"),
        (lambda s: (s / "added_tokens.json").unlink(), "--image-token-id"),
        (lambda s: (s / "model.safetensors").unlink(), "no model.safetensors"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    source: Path, tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(source)
    with pytest.raises(CheckpointError, match=words) as caught:
        convert(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_unknown_conversation_is_said_and_left_out(
    source: Path, tmp_path: Path, log: Callable[[], str]
) -> None:
    change(source, template="vicuna")
    out = convert(source, tmp_path / "out")
    assert "'vicuna' is not supported" in log()
    assert not (out / "chat_template.jinja").exists()
    load(out)
