"""Worked answers: drawn, checked, each kept once, and mixed with the data they were made from."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
import yaml
from instruct_case import contents, files, reply, rows, run, sums_file
from scripted_server import question_of
from source_files import cut_short, write_lines

from fcot_vl.common.stage import StageError
from fcot_vl.data.dataset import Sample, SampleFolder, write_shard
from fcot_vl.data.sources.open_data import open_data
from fcot_vl.instruct import shard_runner as shards
from fcot_vl.instruct.backends.local import Decoding, LocalVlm, Request, SeededSampling
from fcot_vl.stages.cot import CotConfig, cot
from fcot_vl.synthesize.minidoc import make_sample


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sums_file(tmp_path_factory.mktemp("data"), 6)


def test_what_is_right_reasoned_and_new_is_kept(serve, data, tmp_path):
    server = serve(reply=reply)
    out = run("cot", server, data, tmp_path / "out", samples=8, keep=2, price_in=1.0, price_out=1.0)
    found = rows(out, "cot")
    assert len(found) == 6 * 2 * 8 == len(server.asked)
    by_question: dict = {}
    for row in found:
        by_question.setdefault((row["id"], row["turn"]), []).append(row)
    assert len(by_question) == 12
    for drawn in by_question.values():
        outcomes = Counter(row["outcome"] for row in drawn)
        texts = {row["response"] for row in drawn}
        right = {text for text in texts if text.endswith(f"Answer: {drawn[0]['truths'][0]}")}
        # With and without blanks around the signs it is one answer, so there are at most two different ones.
        assert outcomes["kept"] == len({text[:8] == "The page" for text in right}) <= 2
        for row in drawn:
            answer_is_right = row["answer"] == row["truths"][0]
            assert (row["outcome"] == "wrong") == (not answer_is_right)
            assert (row["outcome"] == "bare answer") == (row["response"] == row["truths"][0])
    before = {sample.id: sample for sample in open_data(data)}
    kept = [(row["id"], row["turn"], row["draw"]) for row in found if row["outcome"] == "kept"]
    assert [sample.id for sample in SampleFolder(out)] == [
        f"{id}-t{turn}-s{draw}" for id, turn, draw in sorted(kept)
    ]
    for sample in SampleFolder(out):
        id, turn = sample.id.split("-t")[0], int(sample.id.split("-t")[1].split("-")[0])
        assert [m["role"] for m in sample.messages] == ["user", "assistant"]
        assert sample.messages[0]["content"].startswith(f"What is {id[1:]} plus {turn + 1}?\n\nLook closely")
        assert sample.answers == [str(int(id[1:]) + turn + 1)]
        assert sample.images[0].tobytes() == before[id].images[0].convert("RGB").tobytes()
    gained = json.loads((out / "yield.json").read_text())
    total = json.loads((out / "stage.json").read_text())["figures"]
    assert gained["sums"] == gained["all"] and gained["all"]["kept"] == total["kept"] == len(
        SampleFolder(out)
    )
    assert total["sampled"] == 96 and total["cost"] == (96 * 13) / 1e6
    assert total["right"] == sum(row["outcome"] not in ("wrong", "failed") for row in found)
    assert (out / "yield.png").stat().st_size > 5000
    bodies = [(question_of(body), body["seed"]) for body in server.asked]
    assert len(set(bodies)) == 96 and {body["temperature"] for body in server.asked} == {0.8}


def test_the_same_seed_gives_the_same_and_other_settings_are_refused(serve, data, tmp_path):
    server = serve(reply=reply)
    out = run("cot", server, data, tmp_path / "one", samples=4, select="diverse")
    again = run("cot", server, data, tmp_path / "two", samples=4, select="diverse", requests=1)
    assert files(out) == files(again)
    other = run("cot", server, data, tmp_path / "three", samples=4, select="diverse", seed=1)
    assert files(out)["cot-00000.jsonl"] != files(other)["cot-00000.jsonl"]
    with pytest.raises(StageError, match="samples"):
        run("cot", server, data, tmp_path / "one", samples=5, select="diverse")


def test_what_is_not_asked(serve, tmp_path):
    page = make_sample("train", 0, 0, "forms").images

    def sample(name, task, *texts, answers=()):
        roles = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
        return Sample(name, page, roles, task, "own", list(answers))

    samples = [
        sample("document", "table", "Convert.", "| a |"),
        sample("long", "vqa", "Describe it.", "word " * 30),
        sample("open", "vqa", "And this one is open?"),
        sample("given", "vqa", "What is 20 plus 1?", "It is twenty-one, as one can see.", answers=["21"]),
        sample("no task", "", "What is 30 plus 1?", "31"),
    ]
    (tmp_path / "data").mkdir()
    write_shard(tmp_path / "data" / "a.parquet", samples)
    server = serve(reply=reply)
    out = run("cot", server, tmp_path / "data", tmp_path / "out")
    outcomes = {row["id"]: row["outcome"] for row in rows(out, "cot")}
    assert outcomes["document"] == "left by its task"
    assert outcomes["long"] == outcomes["open"] == "no short answer"
    gained = json.loads((out / "yield.json").read_text())
    assert len(server.asked) == 8 and gained["all"]["not_asked"] == 3
    assert gained["own"]["sampled"] == gained["vqa"]["sampled"] == 4, (
        "without a task it is counted by its source"
    )


def test_broken_pictures_are_named(serve, tmp_path):
    data, server = sums_file(tmp_path, 4), serve(reply=reply)
    cut_short(tmp_path / "images" / "12.png")
    out = run("cot", server, data, tmp_path / "out", max_skipped=0.25)
    assert {row["failed"] for row in rows(out, "cot") if row["id"] == "r12"} == {"broken image"}
    assert all(not name.startswith("r12") for name in contents(out))
    (tmp_path / "images" / "13.png").unlink()
    with pytest.raises(ValueError, match=r"2 of 4 samples.*--max-skipped 0.25"):
        run("cot", server, data, tmp_path / "stops", max_skipped=0.25)


# --------------------------------------------------------------------------------------------------- the mixture


@pytest.mark.parametrize(("ratio", "vanilla"), [(None, 6), (0.5, None), (0.25, None), (0.0, 0)])
def test_the_mixture_has_the_share_asked_for(serve, data, tmp_path, ratio, vanilla):
    out = run("cot", serve(reply=reply), data, tmp_path / "out", vanilla_ratio=ratio)
    mixture, made = open_data(out / "mixture.yaml"), len(SampleFolder(out))
    worked = sum("-t" in mixture.origin(item).id for item in range(len(mixture)))
    assert worked == made > 0
    if vanilla is not None:
        assert len(mixture) - worked == vanilla
    else:
        assert abs((len(mixture) - worked) - made * ratio / (1 - ratio)) <= 0.5


@pytest.mark.parametrize("records", [None, 30])
def test_a_mixture_is_taken_over_with_its_weights(serve, data, tmp_path, records):
    folder = tmp_path / "mixtures"
    folder.mkdir()
    write_shard(tmp_path / "pages.parquet", [make_sample("train", 0, 0, "transcribe")])
    write_lines(
        folder / "rows.jsonl",
        [{"picture": str(data.parent / "images" / "10.png"), "q": "Q?", "a": "x " * 40}],
    )
    sources = [
        {"name": "cot", "llava": str(data), "weight": 2.0},
        {"name": "pages", "folder": ".."},
        {
            "name": "rows",
            "dataset": "rows.jsonl",
            "columns": {"image": "picture", "question": "q", "answer": "a"},
        },
    ]
    mixture = {"sources": sources, "max_skipped": 0.2} | ({"records": records} if records else {})
    (folder / "mix.yaml").write_text(yaml.safe_dump(mixture))
    server = serve(reply=reply)
    out = run("cot", server, folder / "mix.yaml", tmp_path / "deep" / "out", vanilla_ratio=None)
    assert len(server.asked) == 6 * 2 * 4, "each record once, whatever its weight"
    before, after = open_data(folder / "mix.yaml"), open_data(out / "mixture.yaml")
    assert after.names == ["cot", "pages", "rows", "cot-2"] and after.max_skipped == 0.2
    counts = [Counter(one.origin(item).source for item in range(len(one))) for one in (before, after)]
    assert counts[0] == {name: count for name, count in counts[1].items() if name != "cot-2"}
    assert counts[1]["cot-2"] == len(SampleFolder(out))


def test_nothing_right_leaves_the_data_alone(serve, data, tmp_path):
    out = run("cot", serve(reply=lambda body: "I see. Answer: 0"), data, tmp_path / "out", vanilla_ratio=0.5)
    assert len(SampleFolder(out)) == 0 and len(open_data(out / "mixture.yaml")) == 6


# ------------------------------------------------------------------------------------------------ a model loaded here


def test_draws_follow_the_probabilities_and_only_their_own_seed():
    logits = torch.tensor([0.5, 0.3, 0.2]).log() * 0.7
    seeds = list(range(4000))
    drawn = SeededSampling(seeds, 0.7, torch.device("cpu"))(torch.zeros(1), logits.expand(4000, 3)).argmax(1)
    shares = drawn.bincount(minlength=3) / 4000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.03)
    turned = SeededSampling(seeds[::-1], 0.7, torch.device("cpu"))(
        torch.zeros(1), logits.expand(4000, 3)
    ).argmax(1)
    assert torch.equal(turned.flip(0), drawn)


def test_draws_do_not_depend_on_their_batch(teacher_folder):
    samples = [make_sample("train", k, 0, "sums") for k in range(2)]
    asked = [
        Request(f"{k}/{draw}", samples[k].messages[:1], lambda k=k: samples[k].images)
        for k in range(2)
        for draw in range(3)
    ]

    def texts(asked, batch_size, seed=0):
        got = {}
        teacher = LocalVlm(str(teacher_folder), Decoding(6, 1.0, seed), batch_size)
        teacher.answer(asked, {}, lambda at, reply: got.__setitem__(asked[at].key, reply.text))
        return got

    found = texts(asked, 6)
    assert len(set(found.values())) > 2
    assert texts(asked[::-1], 2) == found == texts(asked, 1)
    assert texts(asked, 6, seed=1) != found


@pytest.mark.faults
def test_a_killed_run_of_a_local_teacher_goes_on_to_the_same_files(teacher_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 2)
    (tmp_path / "data").mkdir()
    write_shard(tmp_path / "data" / "a.parquet", [make_sample("train", k, 0, "sums") for k in range(3)])
    settings = {"samples": 2, "max_new_tokens": 3, "batch_size": 5, "max_skipped": 1.0}
    asking = {"teacher": str(teacher_folder), **settings}
    whole = cot(CotConfig(tmp_path / "whole", str(tmp_path / "data"), **asking))
    inner, calls = shards.Journal.append, []

    def stop(self, key, reply):
        calls.append(key)
        if len(calls) in (3, 9):
            raise KeyboardInterrupt
        inner(self, key, reply)

    monkeypatch.setattr(shards.Journal, "append", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            cot(CotConfig(tmp_path / "killed", str(tmp_path / "data"), **asking))
    killed = cot(CotConfig(tmp_path / "killed", str(tmp_path / "data"), **asking))
    assert files(killed) == files(whole)
    assert len(calls) == 3 * 3 * 2 + 2


def test_settings_that_do_not_go_together_are_refused(tmp_path):
    for wrong, message in (
        ({"samples": 0}, "--samples and --keep"),
        ({"select": "longest"}, "unknown --select 'longest'; choose from shortest, diverse"),
        ({"temperature": 0.0}, "--temperature must be above 0 for 8 different answers"),
        ({"vanilla_ratio": 1.0}, "--vanilla-ratio is a share"),
        ({"endpoint": "http://x/v1"}, "must be given together"),
    ):
        with pytest.raises(ValueError, match=message):
            CotConfig(tmp_path / "out", "data", **wrong)
