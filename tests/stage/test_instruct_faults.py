"""`label`, `rewrite` and `cot` against a server that fails in every way: nothing lost, twice, or asked again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from instruct_case import VERBS, contents, files, reply, run, sums_file
from scripted_server import DIE, DROP, HALF, HANG

from fcot_vl.data.dataset import SampleFolder
from fcot_vl.instruct import shard_runner as shards
from fcot_vl.instruct.backends.endpoint import EndpointBackend
from fcot_vl.instruct.backends.local import Decoding, Reply, Request
from fcot_vl.instruct.shard_runner import Journal

pytestmark = pytest.mark.faults
RECORDS = 6
QUESTIONS = {"label": 2 * RECORDS, "rewrite": 2 * RECORDS, "cot": 2 * RECORDS * 4}
FAULTS = {  # at most two unreadable replies each: a third to the same question would be the last
    "busy": [429, 429, 500, 502, 503],
    "cut off": [HALF, DROP, HALF, DROP, HANG],
    "all at once": [429, HALF, "{", 500, DROP, HANG, 503, '{"choices": null}'],
}
UNREADABLE = [
    *("<html>", "", '{"choices": [', "[]", '"x"', "null", "{}"),
    *(
        '{"choices": []}',
        '{"choices": {"a": 1}}',
        '{"choices": [{"message": {}}]}',
        '{"choices": [{"message": 1}]}',
    ),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sums_file(tmp_path_factory.mktemp("data"), RECORDS)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 4)


@pytest.fixture
def undisturbed(serve, data, tmp_path_factory):
    """What a verb writes when nothing happens."""

    def make(verb):
        server = serve(reply=reply)
        written = files(run(verb, server, data, tmp_path_factory.mktemp("whole") / "out"))
        assert set(server.answered.values()) == {1} and server.answered.total() == QUESTIONS[verb]
        return written

    return make


@pytest.mark.parametrize("verb", VERBS)
def test_every_fault_that_passes_leaves_no_trace(verb, serve, data, tmp_path, undisturbed):
    whole = undisturbed(verb)
    for number, faults in enumerate(FAULTS.values()):
        server = serve(*faults, reply=reply)
        out = run(verb, server, data, tmp_path / f"{number}", timeout=0.8)
        assert files(out) == whole
        assert set(server.answered.values()) == {1} and server.answered.total() == QUESTIONS[verb]
        assert not server.faults and len(server.asked) == QUESTIONS[verb] + len(faults)


@pytest.mark.parametrize("text", UNREADABLE)
def test_an_unreadable_reply_is_asked_for_again(text, serve):
    server, got = serve(text, text), {}
    teacher = EndpointBackend(server.url, "big", Decoding(8), 1)
    teacher.answer([Request("a", [{"role": "user", "content": "Q?"}])], {}, got.__setitem__)
    assert got[0].text == "answer to Q?" and len(server.asked) == 3
    server.faults = [text] * 3
    teacher.answer([Request("a", [{"role": "user", "content": "Q?"}])], {}, got.__setitem__)
    assert got[0].kind == "malformed reply" and got[0].reason and not got[0].text


def test_half_a_character_does_no_harm(serve):
    odd = '{"choices": [{"message": {"content": "\\ud83d x"}, "finish_reason": "stop"}], "usage": {"a": "b"}}'
    server, got = serve(odd), {}
    teacher = EndpointBackend(server.url, "big", Decoding(8), 1)
    teacher.answer([Request("a", [{"role": "user", "content": "Q?"}])], {}, got.__setitem__)
    assert got[0] == Reply("? x", None, "stop")


@pytest.mark.parametrize("verb", VERBS)
def test_a_server_that_dies_again_and_again(verb, serve, data, tmp_path, undisturbed):
    whole = undisturbed(verb)
    answered, deaths = [], 0
    for die_after in (3, 5, 2, None):
        server = serve(reply=reply, die_after=die_after)
        answered.append(server)
        if die_after is not None:
            with pytest.raises(ValueError, match=r"not reached.*rerun the same command to resume") as caught:
                run(verb, server, data, tmp_path / "out")
            assert "\n" not in str(caught.value)
            deaths += 1
        else:
            out = run(verb, server, data, tmp_path / "out")
    total = sum((server.answered for server in answered[1:]), answered[0].answered)
    assert set(total.values()) == {1} and total.total() == QUESTIONS[verb], "an answer was asked for twice"
    assert files(out) == whole and deaths == 3
    assert json.loads((out / "stage.json").read_text())["runs"] == 4


@pytest.mark.parametrize("verb", VERBS)
def test_an_interruption_while_a_shard_is_written(verb, serve, data, tmp_path, undisturbed, monkeypatch):
    whole = undisturbed(verb)
    server, inner = serve(reply=reply), shards.write_shard

    def stop(path, samples):
        if path.name.endswith("00001.parquet"):
            raise KeyboardInterrupt
        inner(path, samples)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            run(verb, server, data, tmp_path / "out")
    asked = len(server.asked)
    assert files(run(verb, server, data, tmp_path / "out")) == whole
    assert len(server.asked) == asked == QUESTIONS[verb]


def test_a_killed_process_asks_nothing_again(serve, data, tmp_path, undisturbed):
    whole = undisturbed("rewrite")
    server = serve(reply=reply)
    code = (
        "from fcot_vl.instruct import shard_runner; shard_runner.SHARD = 4; from fcot_vl.cli import main; import sys;"
        f"sys.argv = ['fcot-vl', 'rewrite', '--data', {str(data)!r}, '--output', {str(tmp_path / 'out')!r},"
        f"'--endpoint', {server.url!r}, '--model', 'big', '--requests', '1']; main()"
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-c", code], **quiet)

    def kill(number):
        if number == 6:
            os.kill(process.pid, signal.SIGKILL)
        return number == 6

    server.on_request = kill
    assert process.wait(120) == -signal.SIGKILL
    assert (tmp_path / "out" / "rewrite-00000.partial.jsonl").read_text().count("\n") == 5
    server.on_request = lambda number: False
    assert files(run("rewrite", server, data, tmp_path / "out")) == whole
    assert set(server.answered.values()) == {1} and server.answered.total() == QUESTIONS["rewrite"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_reply_that_is_never_readable_costs_no_other_record(verb, serve, data, tmp_path):
    server = serve(*['{"choices": []}'] * 3, reply=reply)
    out = run(verb, server, data, tmp_path / "out", requests=1, max_skipped=0.5)
    found = contents(out)
    if verb == "label":
        assert [sample.id for sample in SampleFolder(out)] == [f"r{k}" for k in range(11, 16)]
        assert json.loads((out / "skipped.jsonl").read_text())["kind"] == "malformed reply"
    elif verb == "rewrite":
        assert len(found) == RECORDS and found["r10"][1] == "11", "the original stays"
        figures = json.loads((out / "stage.json").read_text())["figures"]
        assert figures["kept_because"]["malformed reply"] == 1
    else:
        assert json.loads((out / "yield.json").read_text())["all"]["outcomes"]["failed"] == 1
    server = serve(*['{"choices": []}'] * 3, reply=reply)
    with pytest.raises(ValueError, match=r"1 of 6 samples were skipped or not answered.*malformed reply"):
        run(verb, server, data, tmp_path / "stops", requests=1, max_skipped=0.1)


def test_a_server_that_is_never_there_again_says_so(serve, data, tmp_path):
    with pytest.raises(ValueError, match=r"503.*rerun the same command to resume"):
        run("rewrite", serve(*[503] * 99, reply=reply), data, tmp_path / "busy")
    with pytest.raises(ValueError, match=r"no answer within 0.1 seconds \(--timeout\)"):
        run("rewrite", serve(*[HANG] * 99, reply=reply), data, tmp_path / "silent", timeout=0.1)
    with pytest.raises(ValueError, match="not reached"):
        run("rewrite", serve(DIE, reply=reply), data, tmp_path / "dead")


def test_what_a_kill_left_of_a_line_is_asked_again(tmp_path):
    path = tmp_path / "x.partial.jsonl"
    journal = Journal(path)
    journal.append("a", Reply("ä\n\u2028", 3, "stop", prompt_tokens=7))
    journal.append("b", Reply(kind="malformed reply", reason="no answer is not kept"))
    journal.append("c", Reply("two"))
    journal.close()
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        again = Journal(path)
        assert list(again.replies) == ["a", "c"][: whole[:end].count(b"\n")]
        again.append("d", Reply("three"))
        again.close()
        assert list(Journal(path).replies)[-1] == "d"
    assert Journal(path).replies["a"] == Reply("ä\n\u2028", 3, "stop", prompt_tokens=7)
