"""Other people's records: read as they are meant, refused with a reason, never decoded before they are used."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from source_files import cut_short, llava_file, picture, record, talk, write_lines

from fcot_vl.data.chat_format import SampleError, read_question, read_turns
from fcot_vl.data.images import ImageError, LazyImage, open_image
from fcot_vl.data.skip_log import kind_of
from fcot_vl.data.sources.conversations import ConversationFile, JsonSamples, open_internvl
from fcot_vl.data.sources.hf_datasets import DatasetSource, RowReader, load_rows
from fcot_vl.data.sources.image_folder import ImageFolder

# ------------------------------------------------------------------------------------------------- lazy pictures


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_lazy_picture_has_the_size_of_the_opened_one(tmp_path, orientation):
    from PIL import Image as Pil

    exif = Pil.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Pil.open(picture(tmp_path / "a.png")).save(path, exif=exif)
    lazy = LazyImage(path)
    assert lazy._im is None, "decoded before it was used"
    opened = open_image(path)
    assert lazy.size == opened.size and lazy.mode == "RGB" and lazy._im is None
    np.testing.assert_array_equal(np.asarray(lazy), np.asarray(opened))
    resized = LazyImage(path).resize((20, 20))
    np.testing.assert_array_equal(np.asarray(resized), np.asarray(opened.resize((20, 20))))


def test_a_lazy_picture_refuses_a_header_at_once_and_pixels_when_used(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        LazyImage(tmp_path / "none.png")
    (tmp_path / "a.txt").write_text("no picture")
    with pytest.raises(ImageError, match=r"a\.txt: not an image"):
        LazyImage(tmp_path / "a.txt")
    lazy = LazyImage(cut_short(tmp_path / "cut.png"))
    assert lazy.size == (120, 100)
    with pytest.raises(ImageError, match=r"cut\.png: damaged"):
        lazy.load()


# ------------------------------------------------------------------------------------------------- conversations


def test_marks_are_taken_out_and_roles_translated():
    turns = [{"from": "system", "value": "Be short."}, *talk("<image>\nRead.", "a", "And?", "b")]
    assert read_turns(turns, 1) == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Read."},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "b"},
    ]
    assert read_turns(talk("Read.\n<image>", "a"), 1)[0]["content"] == "Read.\n<image>", "it keeps its place"
    assert read_turns(talk("<image>\n<image>\nCompare.", "a"), 2)[0]["content"] == "Compare."
    assert read_turns(talk("Read.", "a"), 1)[0]["content"] == "Read.", "InternVL allows it"
    assert read_turns(talk("Read.", "a"), 2)[0]["content"] == "Read."
    numbered = "Image-1: <image>\nImage-2: <image>\nCompare."
    assert read_turns(talk(numbered, "a"), 2)[0]["content"] == numbered
    later = read_turns(talk("<image>\nRead.", "a", "And <image>?", "b"), 2)
    assert [turn["content"] for turn in later] == ["<image>\nRead.", "a", "And <image>?", "b"]
    parts = [{"type": "image"}, {"type": "text", "text": "Read."}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "a"}]
    assert read_turns(turns, 1)[0] == {"role": "user", "content": "Read."}


@pytest.mark.parametrize(
    ("turns", "pictures", "reason"),
    [
        ([], 0, "no turns"),
        (None, 0, "no turns"),
        ("text", 0, "no turns"),
        (["text"], 0, "must be an object, got str"),
        ([{"from": "tool", "value": "x"}], 0, "unknown role 'tool'"),
        (talk("q", "a")[1:], 0, "turn 1 is the assistant's"),
        (talk("q"), 0, "the last question has no answer"),
        ([{"from": "system", "value": "x"}], 0, "no answer"),
        (talk("<image>\nq", "a"), 0, "1 <image> for 0 images"),
        (talk("<image>\nq", "a"), 2, "1 <image> for 2 images"),
        (talk("q", "a", "<image>\nq", "a"), 2, "1 <image> for 2 images"),
        (talk("<image>\nq", "<image>"), 1, "outside of a question"),
        ([{"from": "system", "value": "<image>"}, *talk("q", "a")], 1, "outside of a question"),
        (talk("a \ud83d", "a"), 0, "not valid Unicode: character 3 is half of a character"),
        (talk("q", "\udc80"), 0, "not valid Unicode"),
        ([{"from": ["human"], "value": "x"}], 0, "unknown role"),
        (talk("<image>\nq", " "), 1, "an empty assistant turn"),
        (talk("", "a"), 0, "an empty user turn"),
        ([{"from": "human", "value": 3}, *talk("q", "a")[1:]], 0, "expected text, found int"),
        ([{"role": "user", "content": [{"type": "video"}]}], 0, "neither text nor image"),
    ],
)
def test_a_malformed_conversation_says_why(turns, pictures, reason):
    with pytest.raises(SampleError, match=reason) as caught:
        read_turns(turns, pictures)
    assert caught.value.kind == "malformed conversation"


def test_a_question_and_an_answer():
    assert read_question("<image>Read.", "a", 1) == [
        {"role": "user", "content": "Read."},
        {"role": "assistant", "content": "a"},
    ]
    assert len(read_question("Read.", None, 1)) == 1
    assert read_question("q", 42, 0)[1]["content"] == "42"
    for question, answer in (("", "a"), ("q", " "), ("q", True), (None, "a"), ("q", float("nan"))):
        with pytest.raises(SampleError):
            read_question(question, answer, 0)


# ------------------------------------------------------------------------------------------------------ the files


def test_lines_and_an_array_read_the_same(tmp_path):
    records = [{"id": at, "text": "é\n"} for at in range(3)]
    lines = write_lines(tmp_path / "a.jsonl", [records[0], "", *records[1:]])
    array = tmp_path / "a.json"
    array.write_text("\ufeff " + json.dumps(records, indent=1), encoding="utf-8")
    assert list(JsonSamples(lines)) == list(JsonSamples(array)) == records
    assert len(JsonSamples(write_lines(tmp_path / "none.jsonl", []))) == 0
    (tmp_path / "half.json").write_text("[{")
    with pytest.raises(ValueError, match=r"half\.json: starts like a JSON array"):
        JsonSamples(tmp_path / "half.json")
    with pytest.raises(ValueError, match="cannot be read"):
        JsonSamples(tmp_path / "no.jsonl")


def test_records_of_a_conversation_file(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", 30, 20)
    cut_short(tmp_path / "cut.png")
    records = [
        record("one", "a.png", "<image>\nRead.", "text"),
        record("two", ["a.png", "b.png"], "<image><image>\nCompare.", "text"),
        {"id": 3, "conversations": talk("Why?", "Because.")},
        record("cut", "cut.png", "<image>\nRead.", "text"),
        record("missing", "none.png", "<image>\nRead.", "text"),
        record("address", "https://example.org/a.png", "<image>\nRead.", "text"),
        record("data", "data:image/png;base64,AAAA", "<image>\nRead.", "text"),
        {**record("film", None, "Look.", "text"), "video": "a.mp4"},
        "{broken",
    ]
    source = ConversationFile("own", write_lines(tmp_path / "own.jsonl", records), tmp_path)
    assert len(source) == 9
    one, two, three, cut = source[:4]
    assert (one.id, one.source, one.images[0].size) == ("one", "own", (60, 40))
    assert [image.size for image in two.images] == [(60, 40), (30, 20)]
    assert three.id == "3" and three.images == []
    assert cut.images[0].size == (120, 100), "only its header is read"
    kinds = []
    for index in range(4, 9):
        with pytest.raises(ValueError) as caught:
            source[index]
        kinds.append(kind_of(caught.value))
    assert kinds == [
        "missing file",
        "image by URL",
        "image by URL",
        "video",
        "malformed conversation",
    ]
    assert source.origin(4).id == "missing" and source.origin(8).id == "own-8"


def test_the_fingerprint_sees_words_and_exchanged_pictures(tmp_path):
    path = llava_file(tmp_path)
    before = ConversationFile("a", path, tmp_path).fingerprint()
    assert ConversationFile("a", path, tmp_path).fingerprint() == before
    picture(tmp_path / "images" / "2.png", 70, 40)
    exchanged = ConversationFile("a", path, tmp_path).fingerprint()
    path.write_text(path.read_text().replace("text 3", "text 4"))
    assert len({before, exchanged, ConversationFile("a", path, tmp_path).fingerprint()}) == 3


def test_an_internvl_meta_file(tmp_path, log):
    picture(tmp_path / "own" / "img" / "a.png")
    lines = [record("a", "a.png", "<image>\nRead.", "text")]
    write_lines(tmp_path / "own" / "a.jsonl", lines)
    entry = {"root": "own/img", "annotation": "own/a.jsonl", "data_augment": False, "length": 1}
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"a": {**entry, "repeat_time": 0.5}, "b": {**entry, "max_dynamic_patch": 6}}))
    (a, once), (b, twice) = open_internvl(meta)
    assert (a.name, once, b.name, twice) == ("a", 0.5, "b", 1.0)
    assert a[0].images[0].size == (60, 40)
    printed = log()
    assert "b: max_dynamic_patch not used" in printed and "a:" not in printed
    for wrong, message in (([], "one JSON object of sources"), ({"a": {"root": "."}}, "needs `root`")):
        meta.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=message):
            open_internvl(meta)


def test_a_folder_of_pictures(tmp_path):
    picture(tmp_path / "b.PNG")
    picture(tmp_path / "deep" / "a.png")
    picture(tmp_path / ".hidden" / "c.png")
    (tmp_path / "notes.txt").write_text("x")
    source = ImageFolder(tmp_path)
    assert [source.origin(at).id for at in range(2)] == ["b.PNG", "deep/a.png"] and len(source) == 2
    assert [path.name for path in source.refused] == ["notes.txt"]
    assert source[1].messages == [] and source[1].images[0].size == (60, 40)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image here"):
        ImageFolder(tmp_path / "empty")


# ------------------------------------------------------------------------------------------------------- datasets


def dataset(tmp_path):
    data = picture(tmp_path / "a.png").read_bytes()
    rows = {
        "picture": [{"bytes": data, "path": None}] * 3,
        "query": ["What?", "Who?", "?"],
        "answers": [["a", "b"], ["c"], []],
        "number": [7, 8, 9],
        "other": ["x"] * 3,
    }
    types = {
        "picture": Image(),
        "query": Value("string"),
        "answers": List(Value("string")),
        "number": Value("int64"),
        "other": Value("string"),
    }
    return Dataset.from_dict(rows, features=Features(types))


COLUMNS = {"image": "picture", "question": "query", "answer": "answers", "id": "number"}


def test_a_dataset_with_columns(tmp_path):
    source = DatasetSource(dataset(tmp_path), RowReader("docs", COLUMNS, tmp_path))
    first = source[0]
    assert first.id == "7" and first.answers == ["a", "b"] and first.source == "docs"
    assert [m["content"] for m in first.messages] == ["What?", "a"]
    assert first.images[0].size == (60, 40) and first.images[0]._im is None
    with pytest.raises(SampleError, match="no answer"):
        source[2]
    assert source.origin(2).id == "9"
    other = dataset(tmp_path).map(lambda row: {"query": row["query"] + "!"})
    reader = RowReader("docs", COLUMNS, tmp_path)
    again = DatasetSource(dataset(tmp_path), reader).fingerprint()
    assert source.fingerprint() == again != DatasetSource(other, reader).fingerprint()


def test_datasets_are_found_where_they_lie(tmp_path):
    rows = dataset(tmp_path)
    rows.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": rows}).save_to_disk(tmp_path / "splits")
    rows.to_parquet(tmp_path / "rows.parquet")
    for path in ("saved", "splits", "rows.parquet"):
        loaded = load_rows("docs", path, tmp_path, None, "train", False)
        assert DatasetSource(loaded, RowReader("docs", COLUMNS, tmp_path))[1].messages[1]["content"] == "c"
    for path in ("no.parquet", "./no", "a.png"):
        with pytest.raises(ValueError, match=r"docs: the dataset .* cannot be loaded"):
            load_rows("docs", path, tmp_path, None, "train", False)


def test_a_dataset_of_messages_and_paths(tmp_path):
    picture(tmp_path / "a.png")
    turns = [{"role": "user", "content": "<image>\nRead."}, {"role": "assistant", "content": "a"}]
    rows = [{"m": turns, "files": ["a.png"]}, {"m": turns, "files": ["https://example.org/a.png"]}]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    loaded = load_rows("chat", path.name, tmp_path, None, "train", False)
    source = DatasetSource(loaded, RowReader("chat", {"messages": "m", "image": "files"}, tmp_path))
    assert source[0].id == "chat-0" and source[0].images[0].size == (60, 40)
    with pytest.raises(SampleError, match="only local files"):
        source[1]
    assert len(source.fingerprint()) == 64


def test_a_wrong_column_map(tmp_path):
    for columns, message in (
        ({"picture": "a"}, "unknown|has 'picture'"),
        ({"id": "a"}, "at least"),
        ({"messages": "a", "question": "b"}, "one of both"),
    ):
        with pytest.raises(ValueError, match=message):
            RowReader("docs", columns, tmp_path)
    with pytest.raises(ValueError, match="no column 'nothing' for image; it has picture"):
        DatasetSource(dataset(tmp_path), RowReader("docs", {"image": "nothing"}, tmp_path))
