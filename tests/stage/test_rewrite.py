"""Rewriting: the tone changes where the facts survive; pictures, documents and everything else stay."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from instruct_case import contents, reply, rows, run, sums_file
from scripted_server import question_of
from source_files import cut_short
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from fcot_vl.common.stage import StageError
from fcot_vl.data.dataset import SampleFolder, write_shard
from fcot_vl.instruct.backends.local import Decoding, LocalLlm, Request
from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.stages.rewrite import RewriteConfig, rewrite
from fcot_vl.synthesize.minidoc import make_sample


@pytest.fixture(scope="module")
def writer_folder(tmp_path_factory):
    """A random Llama with the embedded teacher's characters."""
    folder = tmp_path_factory.mktemp("writer")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
        max_position_embeddings=4096,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=3)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_teacher_path() / name, folder / name)
    return folder


def test_facts_decide_and_originals_stay(serve, tmp_path):
    data, server = sums_file(tmp_path), serve(reply=reply)
    style = tmp_path / "style.jsonl"
    style.write_text('{"question": "Who?", "answer": "That would be Ada."}\n')
    out = run("rewrite", server, data, tmp_path / "out", style=style, price_in=2.0, price_out=8.0)
    found = contents(out)
    assert list(found) == [f"r{k}" for k in range(10, 16)]
    for k in range(10, 16):
        wrong = k % 3 == 0
        for plus, answer in ((1, found[f"r{k}"][1]), (2, found[f"r{k}"][3])):
            assert answer == (f"{k + plus}" if wrong else f"If you add them, the result is {k + plus}.")
        assert found[f"r{k}"][0] == f"What is {k} plus 1?"
    figures = json.loads((out / "stage.json").read_text())["figures"]
    assert (figures["answers"], figures["rewritten"], figures["kept"], figures["left"]) == (12, 8, 4, 0)
    assert figures["kept_because"] == {"number missing": 4}
    assert (figures["prompt_tokens"], figures["completion_tokens"]) == (120, 36)
    assert figures["cost"] == (120 * 2 + 36 * 8) / 1e6
    body = server.asked[0]
    assert isinstance(body["messages"][0]["content"], str), "no picture is sent"
    assert "That would be Ada." in question_of(body) and body["temperature"] == 0 and "seed" not in body
    row = next(row for row in rows(out, "rewrite") if row["outcome"] == "kept")
    assert row["answer"] == "13" and row["rewrite"].endswith("14.") and row["reason"] == "number missing: 13"
    run("rewrite", server, data, tmp_path / "out", style=style, requests=1)
    style.write_text('{"question": "Who?", "answer": "Ada."}\n')
    with pytest.raises(StageError, match="style"):
        run("rewrite", server, data, tmp_path / "out", style=style)


def test_documents_are_left_and_pictures_stay(serve, tmp_path):
    samples = [make_sample("train", 0, 0, task) for task in ("transcribe", "forms", "table_markdown")]
    write_shard(tmp_path / "data" / "a.parquet", samples) if (tmp_path / "data").mkdir() is None else None
    server = serve(
        reply=lambda body: f"It says {question_of(body).split('Answer: ')[-1].splitlines()[0]} here."
    )
    out = run("rewrite", server, tmp_path / "data", tmp_path / "out")
    after = list(SampleFolder(out))
    assert [sample.messages for sample in after[::2]] == [sample.messages for sample in samples[::2]]
    assert all(m["content"].startswith("It says") for m in after[1].messages if m["role"] == "assistant")
    for one, two in zip(samples, after, strict=True):
        assert one.images[0].tobytes() == two.images[0].tobytes() and one.answers == two.answers
    assert len(server.asked) == len(samples[1].messages) // 2


def test_cut_off_and_broken(serve, tmp_path):
    data, server = sums_file(tmp_path), serve(reply=reply)
    cut_short(tmp_path / "images" / "12.png")
    out = run("rewrite", server, data, tmp_path / "out", max_new_tokens=2, max_skipped=0.5)
    assert len(SampleFolder(out)) == 5 and len(server.asked) == 10, (
        "a broken image is found before its answer is paid"
    )
    assert {row["reason"] for row in rows(out, "rewrite") if "outcome" in row} == {
        "cut off: ended by 'length'"
    }
    assert all(found[1].isdigit() for found in contents(out).values())


def test_a_writer_loaded_here(writer_folder, tmp_path):
    data = sums_file(tmp_path, 3)
    own = tmp_path / "own.yaml"
    own.write_text("default: '{question} {answer}'\n")
    config = RewriteConfig(
        tmp_path / "out", str(data), str(writer_folder), prompts=own, max_new_tokens=6, max_skipped=1
    )
    out = rewrite(config)
    found = rows(out, "rewrite")
    assert len(found) == 6 and all(row["outcome"] == "kept" and row["prompt_tokens"] > 10 for row in found)
    assert all(row["tokens"] <= 6 for row in found)
    single = rewrite(replace(config, output=tmp_path / "single", batch_size=1))
    assert rows(single, "rewrite") == found
    asked = [Request("a", [{"role": "user", "content": "x"}])]
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="no language model can be loaded"):
        LocalLlm(str(tmp_path / "bare"), Decoding(4), 1).answer(asked, {}, print)


def test_settings_that_do_not_go_together_are_refused(tmp_path):
    both = {"endpoint": "http://x/v1", "model": "m"}
    for wrong, message in (
        ({}, "give --writer"),
        ({**both, "writer": "w"}, "--writer .*exclude each other"),
        ({**both, "price_in": 1.0}, "--price-in and --price-out"),
        ({**both, "price_in": -1.0, "price_out": 1.0}, "must be at least 0"),
        ({**both, "timeout": 0.0}, "--timeout must be a number of seconds"),
    ):
        with pytest.raises(ValueError, match=message):
            RewriteConfig(tmp_path / "out", "data", **wrong)
