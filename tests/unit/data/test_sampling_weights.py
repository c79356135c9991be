"""Sampling weights from losses: properties; data taken apart and written as a mixture again."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcot_vl.data.dataset import Sample, write_shard
from fcot_vl.data.mixture_file import take_apart, write_mixture, write_subset
from fcot_vl.data.sampling_weights import Group, read_groups, sampling_weights, subset_counts
from fcot_vl.data.sources.open_data import open_data

LOSSES = st.lists(st.floats(1e-3, 50), min_size=1, max_size=9)


def groups_of(losses, lengths=()):
    lengths = [*lengths, *[1.0] * len(losses)]
    return {f"g{at}": Group(loss, 10, lengths[at]) for at, loss in enumerate(losses)}


@settings(max_examples=200, deadline=None)
@given(LOSSES, st.floats(0.05, 1), st.floats(1, 9), st.floats(0.1, 10))
def test_weights_are_bounded_monotone_and_free_of_scale(losses, floor, cap, scale):
    weights = list(sampling_weights(groups_of(losses), floor, cap).values())
    assert all(floor <= weight <= cap for weight in weights)
    pairs = sorted(zip(losses, weights, strict=True))
    assert [w for _, w in pairs] == sorted(w for _, w in pairs)
    scaled = sampling_weights(groups_of([loss * scale for loss in losses]), floor, cap)
    assert list(scaled.values()) == pytest.approx(weights)
    if len(losses) % 2:
        assert weights[losses.index(sorted(losses)[len(losses) // 2])] == 1.0


@settings(max_examples=100, deadline=None)
@given(LOSSES, st.lists(st.floats(1, 500), min_size=9, max_size=9))
def test_generation_is_never_weighed_up(losses, lengths):
    groups = groups_of(losses, lengths)
    weights = sampling_weights(groups, generation={"g0"})
    assert weights["g0"] <= 1
    assert all(weights[name] <= 1 for name, group in groups.items() if group.answer_tokens > 64)


def test_what_cannot_be_weighed_is_refused():
    for floor, cap in ((0, 4), (1.5, 4), (0.5, 0.9), (0.5, float("inf"))):
        with pytest.raises(ValueError, match="floor"):
            sampling_weights(groups_of([1.0]), floor, cap)
    with pytest.raises(ValueError, match="no group"):
        sampling_weights({})
    with pytest.raises(ValueError, match="no such group; there are g0"):
        sampling_weights(groups_of([1.0]), generation={"g"})


def test_losses_are_those_of_the_last_half_weighed_by_tokens(tmp_path):
    log = tmp_path / "losses.jsonl"
    steps = [{"a": (9.0, 5), "b": (7.0, 5)}, {"a": (9.0, 5)}, {"a": (1.0, 30)}, {"a": (3.0, 10)}]
    rows = [
        json.dumps({"step": at, "groups": {n: {"ce": ce, "tokens": t} for n, (ce, t) in step.items()}})
        for at, step in enumerate(steps)
    ]
    log.write_text("\n".join([*rows, '{"step": 5, "gro']))  # cut short by an interruption
    assert read_groups(log, {"a": 3.0}) == {"a": Group(1.5, 40, 3.0), "b": Group(7.0, 5, None)}
    log.write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match="no losses by group"):
        read_groups(log)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 100))
def test_a_subset_is_shared_out_evenly(sizes, records):
    counts = subset_counts(sizes, records)
    assert sum(counts) == min(records, sum(sizes))
    assert all(count <= size for count, size in zip(counts, sizes, strict=True))
    unfilled = [count for count, size in zip(counts, sizes, strict=True) if count < size]
    assert not unfilled or (max(counts) <= max(unfilled) + 1 and max(unfilled) - min(unfilled) <= 1)


def folder_of(path, tasks):
    path.mkdir(parents=True)
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "ab"}]
    samples = [
        Sample(f"{task}-{at}", [Image.new("RGB", (4, 4))], messages, task, "made")
        for at, task in enumerate(tasks)
    ]
    write_shard(path / "a.parquet", samples)
    return path


def test_a_folders_records_of_some_tasks(tmp_path):
    folder_of(tmp_path / "pages", ["sum", "read", "sum", "count"])
    entries = [
        {"name": "sums", "folder": "pages", "task": "sum", "weight": 2},
        {"name": "rest", "folder": "pages", "task": ["read", "count"]},
    ]
    mixture = tmp_path / "m.yaml"
    mixture.write_text(yaml.safe_dump({"sources": entries}))
    data = open_data(mixture)
    assert [sample.id for sample in data] == ["sum-0", "sum-0", "sum-2", "sum-2", "read-1", "count-3"]
    assert data.sources[0].fingerprint() != data.sources[1].fingerprint()
    for task, message in (
        ("add", "no sample of task 'add'; it has count, read, sum"),
        (3, "task is a task's"),
    ):
        mixture.write_text(yaml.safe_dump({"sources": [{"name": "x", "folder": "pages", "task": task}]}))
        with pytest.raises(ValueError, match=message):
            open_data(mixture)


def test_data_is_taken_apart_and_written_again(tmp_path):
    folder_of(tmp_path / "in" / "pages", ["sum", "read", "sum"])
    folder_of(tmp_path / "in" / "more", ["look", "look"])
    content = {
        "sources": [
            {"name": "pages", "folder": "pages", "weight": 2.0},
            {"name": "more", "folder": "more"},
        ],
        "max_skipped": 0.5,
    }
    (tmp_path / "in" / "m.yaml").write_text(yaml.safe_dump(content))
    parts, others = take_apart(tmp_path / "in" / "m.yaml")
    assert [part.group for part in parts] == ["pages/read", "pages/sum", "more"]
    out = tmp_path / "out"
    out.mkdir()
    weights = {part.group: part.weight for part in parts}
    write_mixture(out / "mixture.yaml", parts, weights, {"more": "why"}, others, ["heading"])
    again = open_data(out / "mixture.yaml")
    before = open_data(tmp_path / "in" / "m.yaml")
    assert sorted(s.id for s in again) == sorted(s.id for s in before) and again.max_skipped == 0.5
    text = (out / "mixture.yaml").read_text()
    assert "# heading" in text and "# why" in text and str(tmp_path) not in text
    assert [part.group for part in take_apart(tmp_path / "in" / "pages")[0]] == ["read", "sum"]
    assert write_subset(out / "coarse.yaml", parts, 3, others) == len(open_data(out / "coarse.yaml")) == 3
