"""Labelling: the teacher's own answers, whole or not at all, from a model here or behind an endpoint."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from scripted_server import ScriptedServer
from source_files import cut_short, llava_file, picture, record, write_lines

from fcot_vl.common.stage import StageError
from fcot_vl.data.dataset import Origin, SampleFolder, write_shard
from fcot_vl.data.sources.open_data import open_data
from fcot_vl.instruct import shard_runner as shards
from fcot_vl.instruct.backends.endpoint import MALFORMED, EndpointBackend
from fcot_vl.instruct.backends.local import Decoding, Reply
from fcot_vl.stages.ask import ask
from fcot_vl.stages.label import READ_ALL, LabelConfig, _Conversation, label
from fcot_vl.synthesize.minidoc import make_sample

TOKENS = 160


def rows(folder: Path) -> list[dict]:
    return [
        json.loads(line)
        for path in sorted(folder.glob("label-*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def skipped(folder: Path) -> dict[str, str]:
    lines = (folder / "skipped.jsonl").read_text().splitlines()
    return {row["id"]: row["kind"] for row in map(json.loads, lines)}


# ------------------------------------------------------------------------------------------------ a model here


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Three pages with their questions, as shards."""
    folder = tmp_path_factory.mktemp("pages")
    samples = [make_sample("test", 0, 0, "forms"), make_sample("train", 1, 0, "forms")]
    write_shard(folder / "a.parquet", [*samples, make_sample("test", 0, 0, "multiple_choice")])
    return folder


@pytest.fixture(scope="module")
def labelled(pages, tmp_path_factory):
    return label(
        LabelConfig(tmp_path_factory.mktemp("out"), str(pages), max_new_tokens=TOKENS, max_skipped=1)
    )


def test_the_labels_are_what_ask_answers(pages, labelled, tmp_path):
    before, after = SampleFolder(pages), SampleFolder(labelled)
    assert [sample.id for sample in after] == [sample.id for sample in before]
    for one, two in zip(before, after, strict=True):
        assert [m["role"] for m in two.messages] == [m["role"] for m in one.messages]
        assert two.messages[0] == one.messages[0] and two.answers == one.answers
        assert two.images[0].tobytes() == one.images[0].tobytes()
        one.images[0].save(tmp_path / "page.png")
        answer = ask(tmp_path / "page.png", one.messages[0]["content"], max_new_tokens=TOKENS)
        assert two.messages[1]["content"] == answer.text
    found = rows(labelled)
    assert [row["turn"] for row in found if row["id"] == after[1].id] == list(range(len(found) - 2))
    assert found[0]["truth"] == before[0].messages[1]["content"]
    assert found[0]["finish_reason"] == "stop" and 0 < found[0]["tokens"] <= TOKENS
    figures = json.loads((labelled / "stage.json").read_text())["figures"]
    assert (figures["records"], figures["labelled"], figures["skipped"]) == (3, 3, 0)


@pytest.mark.faults
def test_a_killed_run_goes_on_to_the_same_files(pages, tmp_path, monkeypatch, log):
    monkeypatch.setattr(shards, "SHARD", 1)
    config = {"data": str(pages), "questions": ("What is this?", "Read it."), "max_new_tokens": 8}
    whole = label(LabelConfig(tmp_path / "whole", **config, max_skipped=1, batch_size=2))
    inner, calls = shards.write_shard, []

    def stop_in_the_second(path, samples):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        inner(path, samples)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "write_shard", stop_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            label(LabelConfig(tmp_path / "killed", **config, max_skipped=1))
    killed = label(LabelConfig(tmp_path / "killed", **config, max_skipped=1))
    files = sorted(path.name for path in whole.iterdir() if path.name != "stage.json")
    assert files == sorted(path.name for path in killed.iterdir() if path.name != "stage.json")
    assert all((whole / name).read_bytes() == (killed / name).read_bytes() for name in files)
    label(LabelConfig(tmp_path / "killed", **config, batch_size=1))
    assert "is finished" in log()
    with pytest.raises(StageError, match="max_new_tokens"):
        label(LabelConfig(tmp_path / "killed", **{**config, "max_new_tokens": 9}))


def test_answers_cut_off_are_no_labels_but_the_truth_stays(pages, tmp_path):
    cut = label(LabelConfig(tmp_path / "cut", str(pages), max_new_tokens=1, max_skipped=1))
    assert len(SampleFolder(cut)) == 0 and set(skipped(cut).values()) == {"cut off"}
    kept = label(LabelConfig(tmp_path / "kept", str(pages), max_new_tokens=1, keep_truth=True))
    before, after = SampleFolder(pages), SampleFolder(kept)
    assert [sample.messages for sample in after] == [sample.messages for sample in before]
    found = rows(kept)
    assert len(found) == sum(len(sample.messages) for sample in before) // 2
    assert all(row["finish_reason"] == "length" and row["truth"] for row in found)
    with pytest.raises(ValueError, match=r"3 of 3 samples were skipped.*cut off"):
        label(LabelConfig(tmp_path / "stops", str(pages), max_new_tokens=1))


def test_settings_that_do_not_go_together_are_refused(tmp_path):
    out, both = tmp_path / "out", {"data": "x", "endpoint": "http://127.0.0.1:1/v1", "model": "m"}
    for wrong, message in (
        ({}, "either --data or --images"),
        ({"data": "x", "images": Path("y")}, "either --data or --images"),
        ({"data": "x", "endpoint": "http://x"}, "must be given together"),
        ({**both, "teacher": "t"}, "--teacher .*exclude each other"),
        ({"data": "x", "keep_truth": True, "questions": ("q",)}, "leave out --question"),
        ({"data": "x", "questions": (" ",)}, "--question is empty"),
        ({"data": "x", "requests": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            LabelConfig(out, **wrong)
    with pytest.raises(ValueError, match="not an endpoint; give a URL"):
        EndpointBackend("127.0.0.1:8000", "m", Decoding(8), 1)
    with pytest.raises(ValueError, match="needs a folder of images"):
        label(LabelConfig(out, images=tmp_path / "none"))


# ------------------------------------------------------------------------------------------------ an endpoint


def at(server: ScriptedServer, output: Path, **settings) -> LabelConfig:
    return LabelConfig(output, endpoint=server.url, model="big", **{"max_skipped": 0.5, **settings})


def test_an_endpoint_that_is_busy_is_asked_again(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server = serve(429, 500, 503)
    llava_file(tmp_path / "chat", 6)
    out = label(at(server, tmp_path / "out", data=str(tmp_path / "chat" / "chat.json"), requests=3))
    after = SampleFolder(out)
    assert [sample.messages[1]["content"] for sample in after] == ["answer to Read."] * 6
    assert [sample.id for sample in after] == [f"r{number}" for number in range(6)]
    assert [row["truth"] for row in rows(out)] == [f"text {number}" for number in range(6)]
    assert len(server.asked) == 6 + 3 and 1 < server.most_at_once <= 3
    assert server.keys == {"Bearer secret"}
    body = server.asked[-1]
    assert body["model"] == "big" and body["temperature"] == 0
    image, text = body["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,") and text["text"] == "Read."
    assert "secret" not in "".join(path.read_text() for path in out.glob("*.json*"))


def test_malformed_replies_are_skipped_and_named(serve, tmp_path):
    error_reply = ("<html>", '{"choices": []}', '{"choices": [{"message": {}}]}')
    server = serve(*[text for text in error_reply for _ in range(1 + MALFORMED)], 400)
    llava_file(tmp_path / "chat", 8)
    config = at(server, tmp_path / "out", data=str(tmp_path / "chat" / "chat.json"), requests=1)
    out = label(config)
    assert list(skipped(out).values()) == ["malformed reply"] * 3 + ["refused by the endpoint"]
    assert [sample.id for sample in SampleFolder(out)] == ["r4", "r5", "r6", "r7"]


@pytest.mark.parametrize(("status", "said"), [(401, "401"), (404, "404")])
def test_an_endpoint_that_refuses_stops_the_run_and_it_resumes(serve, tmp_path, status, said):
    server = serve(status)
    llava_file(tmp_path / "chat")
    config = at(server, tmp_path / "out", data=str(tmp_path / "chat" / "chat.json"), requests=1)
    with pytest.raises(ValueError, match=said) as caught:
        label(config)
    assert "\n" not in str(caught.value) and len(server.asked) < 4, "the rest is not asked"
    assert len(SampleFolder(label(config))) == 4


def test_nobody_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("fcot_vl.instruct.backends.endpoint.WAITS", ())
    llava_file(tmp_path / "chat", 2)
    config = LabelConfig(
        tmp_path / "out",
        str(tmp_path / "chat" / "chat.json"),
        endpoint="http://127.0.0.1:9/v1",
        model="m",
    )
    with pytest.raises(ValueError, match="not reached"):
        label(config)


def test_a_folder_of_pictures_with_drawn_questions(serve, tmp_path):
    server, folder = serve(), tmp_path / "scans"
    for number in range(12):
        picture(folder / f"deep{number % 2}" / f"{number:02}.png", seed=number)
    cut_short(folder / "cut.png")
    (folder / "drawing.svg").write_text("<svg/>")
    out = label(at(server, tmp_path / "out", images=folder, questions=("One?", "Two?")))
    drawn = [sample.messages[0]["content"] for sample in SampleFolder(out)]
    assert set(Counter(drawn)) == {"One?", "Two?"} and len(drawn) == 12
    assert skipped(out) == {"cut.png": "broken image", "drawing.svg": "not an image"}
    again = label(at(server, tmp_path / "again", images=folder, questions=("One?", "Two?")))
    assert SampleFolder(again).fingerprint() == SampleFolder(out).fingerprint()
    plain = label(at(server, tmp_path / "plain", images=folder))
    assert {sample.messages[0]["content"] for sample in SampleFolder(plain)} == {READ_ALL}


def test_a_conversation_is_asked_turn_by_turn_and_a_mixture_once(serve, tmp_path):
    server = serve()
    picture(tmp_path / "a.png")
    turns = record("two", "a.png", "<image>\nFirst?", "one", "Second?", "two")
    turns["conversations"].insert(0, {"from": "system", "value": "Be short."})
    write_lines(tmp_path / "own.jsonl", [turns])
    (tmp_path / "mix.yaml").write_text("sources: [{name: own, llava: own.jsonl, weight: 3}]\n")
    out = label(at(server, tmp_path / "out", data=str(tmp_path / "mix.yaml")))
    (sample,) = SampleFolder(out)
    assert [message["content"] for message in sample.messages] == [
        "Be short.",
        "First?",
        "answer to First?",
        "Second?",
        "answer to Second?",
    ]
    assert len(server.asked[1]["messages"]) == 4, "the second question sees the first answer"
    assert len(open_data(out)) == 1
    label(at(server, tmp_path / "kept", data=str(tmp_path / "mix.yaml"), keep_truth=True))
    assert server.asked[-1]["messages"][2]["content"] == "one", "and of a kept truth, the truth"


def test_a_reply_without_text_is_no_label():
    page = _Conversation(0, Origin("a", "b", 0), ["Q?"], [None])
    page.add_reply(0, Reply("", 1, "stop"), keep_truth=False)
    assert page.skipped and page.rows[-1]["kind"] == "empty answer"
