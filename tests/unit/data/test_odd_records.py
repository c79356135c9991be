"""Records that strangers write: read where their meaning is known, else skipped or refused with a reason."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_files import picture, talk, write_lines

from fcot_vl.common.files import read_rows
from fcot_vl.data.chat_format import SampleError
from fcot_vl.data.dataset import SCHEMA, SampleFolder, write_shard
from fcot_vl.data.skip_log import SkipLog
from fcot_vl.data.sources.conversations import ConversationFile, open_internvl
from fcot_vl.data.sources.open_data import open_data
from fcot_vl.stages.label import LabelConfig, label
from fcot_vl.synthesize.minidoc import make_sample


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_half_a_character_costs_one_record(tmp_path, name):
    good, bad = talk("Read.", "text"), talk("Read \ud83d.", "text")
    records = [{"id": f"\ud83d{at}", "conversations": turns} for at, turns in enumerate([good, bad, good])]
    lines = [json.dumps(one) for one in records]
    text = "\n".join(lines) if name == "a.jsonl" else f"[{', '.join(lines)}]"
    (tmp_path / name).write_bytes(
        text.encode() if name == "a.jsonl" else text.replace("Read.", "R\x00d.").encode()
    )
    if name == "a.json":  # bytes that are not UTF-8, in the last record
        data = (
            (tmp_path / name).read_bytes().replace(b"R\x00d.", b"Read.", 1).replace(b"R\x00d.", b"\xff\xfe.")
        )
        (tmp_path / name).write_bytes(data)
    source = ConversationFile("s", tmp_path / name, tmp_path)
    assert len(source) == 3
    assert source[0].messages[1]["content"] == "text"
    skipped = [1] if name == "a.jsonl" else [1, 2]
    log = SkipLog(source, tmp_path / "out", max_share=1.0)
    for index in range(3):
        with log.skipping(index):
            source[index]
    log.write()
    rows = read_rows(tmp_path / "out" / "skipped.jsonl")
    assert [row["index"] for row in rows] == skipped
    assert all("not valid Unicode" in row["reason"] for row in rows)
    assert source.origin(1).id == "?1", "an id is made writable"
    write_shard(tmp_path / "s.parquet", [source[0]])


@pytest.mark.parametrize(
    ("entry", "paths"),
    [
        ({"image": "a.png"}, ["a.png"]),
        ({"images": ["a.png", "a.png"]}, ["a.png"] * 2),
        ({"image_path": "a.png"}, ["a.png"]),
        ({"img": {"path": "a.png"}}, ["a.png"]),
        ({"images": [{"path": "a.png"}]}, ["a.png"]),
        ({"image": None}, []),
        ({"image_id": "0042", "image_size": [3, 4], "width": 3}, []),
    ],
)
def test_spellings_of_images(tmp_path, entry, paths):
    picture(tmp_path / "a.png")
    write_lines(tmp_path / "a.jsonl", [{"conversations": talk("Read.", "text"), **entry}])
    sample = ConversationFile("s", tmp_path / "a.jsonl", tmp_path)[0]
    assert len(sample.images) == len(paths)
    assert sample.messages[0]["content"] == "Read."


def test_images_in_the_parts_of_a_message(tmp_path):
    picture(tmp_path / "a.png")
    parts = [{"type": "text", "text": "One: "}, {"type": "image", "image": "a.png"}]
    parts.append({"type": "image_url", "image_url": {"url": "a.png"}})
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "a"}]
    write_lines(tmp_path / "a.jsonl", [{"messages": turns}])
    sample = ConversationFile("s", tmp_path / "a.jsonl", tmp_path)[0]
    assert len(sample.images) == 2
    assert sample.messages[0]["content"].count("<image>") == 2


@pytest.mark.parametrize(
    "entry",
    [
        {"picture": "a.png"},
        {"page_imgs": ["x", "y"]},
        {"source": "scan/a.JPG"},
        {"screenshot": {"bytes": "AAAA"}},
    ],
)
def test_an_image_under_another_name_is_no_text_alone(tmp_path, entry):
    write_lines(tmp_path / "a.jsonl", [{"conversations": talk("Read.", "text"), **entry}])
    with pytest.raises(SampleError, match="which is not read; put its path into 'image'"):
        ConversationFile("s", tmp_path / "a.jsonl", tmp_path)[0]


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", ""), ("a.json", "[]"), ("a.jsonl", "\n \n")])
def test_a_file_without_records_is_an_error(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="there is no sample in it"):
        open_data(tmp_path / name)
    with pytest.raises(ValueError, match="there is no sample in it"):
        label(LabelConfig(tmp_path / "out", str(tmp_path / name)))


def test_nested_too_deeply_is_one_bad_record(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"a":' * 100_000 + "\n" + json.dumps({"conversations": talk("q", "a")})
    )
    source = ConversationFile("s", tmp_path / "a.jsonl", tmp_path)
    with pytest.raises(SampleError, match="not JSON"):
        source[0]
    assert source[1].messages


@pytest.mark.parametrize(
    ("name", "entry", "reason"),
    [
        ("s", {"root": ".", "annotation": "/dev/zero"}, "not a regular file"),
        ("s", {"root": {}, "annotation": "a.jsonl"}, "root is a path"),
        ("\ud83d", {"root": ".", "annotation": "a.jsonl"}, "not valid Unicode"),
    ],
)
def test_an_odd_meta_file_is_refused(tmp_path, name, entry, reason):
    (tmp_path / "meta.json").write_text(json.dumps({name: entry}))
    with pytest.raises(ValueError, match=reason):
        open_internvl(tmp_path / "meta.json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": None}, "nothing in column 'id'"),
        ({"images": None}, "nothing in column 'images'"),
        ({"images": [{"bytes": None, "path": "a.png"}]}, "an image without bytes"),
        ({"messages": [{"role": "user", "content": None}]}, "a turn without a role or without text"),
        ({"answers": [None]}, "nothing as an answer"),
    ],
)
def test_nothing_in_a_shard_is_never_text(tmp_path, change, reason):
    write_shard(tmp_path / "a.parquet", [make_sample("test", 0, 0, "forms")])
    row = pq.read_table(tmp_path / "a.parquet").to_pylist()[0] | change
    pq.write_table(pa.Table.from_pylist([row], schema=SCHEMA), tmp_path / "a.parquet")
    with pytest.raises(SampleError, match=reason):
        SampleFolder(tmp_path)[0]


def test_a_shard_is_written_whatever_the_model_answered(tmp_path):
    sample = make_sample("test", 0, 0, "forms")
    sample.messages[1]["content"] = "\ud83d\ude00 \ud83d"
    write_shard(tmp_path / "a.parquet", [sample])
    assert SampleFolder(tmp_path)[0].messages[1]["content"] == "\U0001f600 ?"
