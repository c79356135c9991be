"""Mixtures: what is seen how often is a function of weights and seed alone; and data opened by its path."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from source_files import cut_short, llava_file, picture, record, write_lines

from fcot_vl.common.stage import StageError
from fcot_vl.data import streaming as stream
from fcot_vl.data.dataset import Sample, SampleFolder, write_shard
from fcot_vl.data.mixture import Mixture, draw, draw_counts
from fcot_vl.data.sources.conversations import ConversationFile
from fcot_vl.data.sources.hf_datasets import RowReader
from fcot_vl.data.sources.open_data import open_data
from fcot_vl.data.streaming import cache_stream

# ----------------------------------------------------------------------------------------------------- the plan


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 200), weight=st.floats(0.01, 5), seed=st.integers(0, 3))
def test_a_weight_is_how_often_each_record_is_seen(size, weight, seed):
    (count,) = draw_counts([size], [weight]) if size * weight >= 0.5 else [0]
    drawn = draw(size, count, seed, "a")
    assert abs(count - size * weight) <= 0.5 and len(drawn) == count
    seen = Counter(drawn.tolist())
    assert set(seen) <= set(range(size))
    assert max(seen.values(), default=0) - min((seen[at] for at in range(size)), default=0) <= 1
    assert drawn.tolist() == draw(size, count, seed, "a").tolist() == sorted(drawn.tolist())


@settings(max_examples=100, deadline=None)
@given(
    sources=st.lists(st.tuples(st.integers(1, 1000), st.floats(0.01, 10)), min_size=1, max_size=6),
    records=st.integers(1, 5000),
)
def test_the_records_asked_for_are_shared_out_by_size_and_weight(sources, records):
    sizes, weights = zip(*sources, strict=True)
    counts = draw_counts(sizes, weights, records)
    assert sum(counts) == records
    total = sum(size * weight for size, weight in sources)
    for count, (size, weight) in zip(counts, sources, strict=True):
        assert abs(count - records * size * weight / total) <= 1 + 1e-6


def test_seeds_and_names_draw_differently():
    draws = {tuple(draw(100, 20, seed, name)) for seed in range(3) for name in "ab"}
    assert len(draws) == 6


def test_wrong_weights_are_refused():
    for sizes, weights, records in (([3], [0.0], None), ([3], [-1], None), ([0], [1], None), ([3], [0.1], 0)):
        with pytest.raises(ValueError):
            draw_counts(sizes, weights, records)


# ------------------------------------------------------------------------------------------------------ mixtures


def shards(folder: Path, records: int = 3) -> Path:
    folder.mkdir(parents=True)
    image = picture(folder / "a.png")
    messages = [{"role": "user", "content": "Read."}, {"role": "assistant", "content": "x"}]
    from PIL import Image

    samples = [Sample(f"s{at}", [Image.open(image)], messages, "", "inner") for at in range(records)]
    write_shard(folder / "a.parquet", samples)
    return folder


def write_mixture(folder: Path, **content: object) -> Path:
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_mixture_file_of_every_kind(tmp_path, log):
    shards(tmp_path / "pages")
    llava_file(tmp_path / "chat")
    picture(tmp_path / "own" / "a.png")
    write_lines(tmp_path / "own" / "a.jsonl", [record("a", "a.png", "<image>\nRead.", "text")])
    meta = {"inv": {"root": ".", "annotation": "a.jsonl", "repeat_time": 2, "length": 1}}
    (tmp_path / "own" / "meta.json").write_text(json.dumps(meta))
    rows = [{"image": "own/a.png", "q": "What?", "a": ["x", "y"]}]
    write_lines(tmp_path / "docs.jsonl", rows)
    sources = [
        {"name": "pages", "folder": "pages", "weight": 2.0},
        {"name": "own", "internvl": "own/meta.json", "weight": 1.5},
        {"name": "chat", "llava": "chat/chat.json", "weight": 0.5},
        {
            "name": "docs",
            "dataset": "docs.jsonl",
            "columns": {"image": "image", "question": "q", "answer": "a"},
        },
    ]
    mixture = open_data(write_mixture(tmp_path, sources=sources, max_skipped=0.2), seed=1)
    assert isinstance(mixture, Mixture)
    names = [mixture.origin(at).source for at in range(len(mixture))]
    assert Counter(names) == {"pages": 6, "own/inv": 3, "chat": 2, "docs": 1}
    assert mixture.max_skipped == 0.2
    for at, sample in enumerate(mixture):
        assert sample.images[0].size == (60, 40)
        assert mixture.origin(at).id == sample.id
    assert len(mixture.distinct()) == 3 + 1 + 2 + 1
    printed = log()
    assert "data: pages: 6 items from 3 samples" in printed and "data: chat: 2 items from 4" in printed
    again = open_data(tmp_path / "mix.yaml", seed=1)
    np.testing.assert_array_equal(mixture.plan, again.plan)
    assert mixture.fingerprint() == again.fingerprint()
    prints = {open_data(tmp_path / "mix.yaml", seed=seed).fingerprint() for seed in range(6)}
    assert len(prints) > 1, "another seed draws another half of the chat"
    write_mixture(tmp_path, sources=sources, records=100)
    assert len(open_data(tmp_path / "mix.yaml")) == 100


def test_data_by_its_path(tmp_path):
    llava = llava_file(tmp_path)
    assert isinstance(open_data(shards(tmp_path / "pages")), SampleFolder)
    assert isinstance(open_data(llava), ConversationFile)
    assert open_data(llava)[1].messages[1]["content"] == "text 1"
    lines = write_lines(tmp_path / "chat.jsonl", json.loads(llava.read_text()))
    assert open_data(lines)[3].images[0].size == (60, 40)
    meta = {"half": {"root": ".", "annotation": "chat.jsonl", "repeat_time": 0.5, "length": 4}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    assert len(open_data(tmp_path / "meta.json")) == 2
    Dataset.from_dict({"a": [1]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="name it in a mixture YAML"):
        open_data(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"a\.png: no data"):
        open_data(tmp_path / "pages" / "a.png")
    with pytest.raises(FileNotFoundError):
        open_data(tmp_path / "nothing")
    for name in ("nothing.json", "nothing.yaml"):
        with pytest.raises(ValueError, match=name):
            open_data(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "needs a list of `sources`"),
        ({"sources": [], "seed": 1}, "unknown 'seed'"),
        ({"sources": [{"name": "a"}]}, "needs a name and one of folder"),
        ({"sources": [{"folder": "pages"}]}, "needs a name"),
        ({"sources": [{"name": "a", "folder": "pages", "images": "x"}]}, "a: unknown 'images'"),
        ({"sources": [{"name": "a", "folder": "pages", "weight": "much"}]}, "weight is a number"),
        ({"sources": [{"name": "a", "folder": "pages", "weight": 0}]}, "above 0"),
        ({"sources": [{"name": "a", "folder": "pages"}] * 2}, "share a name"),
        ({"sources": [{"name": "a", "llava": "no.json"}]}, "cannot be read"),
        ({"sources": [{"name": "a", "dataset": "x"}]}, "needs columns"),
        (
            {"sources": [{"name": "a", "dataset": "x", "columns": {"image": "i"}, "streaming": True}]},
            "needs `records`",
        ),
    ],
)
def test_a_wrong_mixture_file_is_one_line_that_names_it(tmp_path, content, message):
    shards(tmp_path / "pages")
    with pytest.raises(ValueError, match=message) as caught:
        open_data(write_mixture(tmp_path, **content))
    assert "mix.yaml" in str(caught.value) and "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------- streams

READER = {"image": "image", "question": "q", "answer": "a"}


def stream_of(folder: Path, records: int = 7) -> object:
    """Record 2 has no picture, record 5 one that is cut short."""
    files = [picture(folder / f"{at}.png", seed=at) for at in range(records)]
    files[2].unlink()
    cut_short(files[5])
    lines = write_lines(
        folder / "rows.jsonl", [{"image": f"{at}.png", "q": "?", "a": f"{at}"} for at in range(records)]
    )
    return load_dataset("json", data_files={"train": str(lines)}, split="train", streaming=True)


@pytest.mark.faults
def test_a_stream_is_kept_as_shards_and_a_killed_pass_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "SHARD", 2)
    rows, reader = stream_of(tmp_path / "rows"), RowReader("s", READER, tmp_path / "rows")
    whole = cache_stream(tmp_path / "whole", rows, reader, 6, {"dataset": "x"}, 0.5)
    assert [sample.id for sample in whole] == ["s-0", "s-1", "s-3", "s-4"]
    skipped = [json.loads(line) for line in (tmp_path / "whole" / "skipped.jsonl").read_text().splitlines()]
    assert [(row["index"], row["kind"]) for row in skipped] == [(2, "missing file"), (5, "broken image")]

    inner, shards_written = stream.write_shard, []

    def stop_at_the_second(path, samples):
        if len(shards_written) == 1:
            raise KeyboardInterrupt
        shards_written.append(path)
        inner(path, samples)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "write_shard", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            cache_stream(tmp_path / "killed", rows, reader, 6, {"dataset": "x"}, 0.5)
    killed = cache_stream(tmp_path / "killed", rows, reader, 6, {"dataset": "x"}, 0.5)
    assert killed.fingerprint() == whole.fingerprint()
    assert cache_stream(tmp_path / "killed", None, reader, 6, {"dataset": "x"}, 0.5)[1].id == "s-1"
    with pytest.raises(StageError, match="records"):
        cache_stream(tmp_path / "killed", rows, reader, 5, {"dataset": "x"}, 0.5)


def test_too_much_of_a_stream_unusable_stops_it(tmp_path):
    reader = RowReader("s", READER, tmp_path / "rows")
    with pytest.raises(ValueError, match=r"2 of 7 samples cannot be used, more than max_skipped 0\.01"):
        cache_stream(tmp_path / "out", stream_of(tmp_path / "rows"), reader, 7, {}, 0.01)


def test_a_streaming_source_in_a_mixture(tmp_path):
    stream_of(tmp_path / "rows")
    entry = {"name": "s", "dataset": "rows/rows.jsonl", "columns": READER, "images": "rows"}
    entry |= {"streaming": True, "records": 20, "cache": "cache"}
    mixture = open_data(write_mixture(tmp_path, sources=[entry], max_skipped=0.5))
    assert len(mixture) == 5, "the stream ended before"
    assert (tmp_path / "cache" / "stage.json").exists()


@pytest.mark.parametrize("weight", [1e30, 1e308, 2.0**40])
def test_a_weight_that_draws_too_much_is_refused(weight):
    with pytest.raises(ValueError, match="more than 1,000,000,000; lower them"):
        draw_counts([2, 3], [1.0, weight])
