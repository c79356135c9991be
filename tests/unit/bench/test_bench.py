"""The bench stage: counts against hand cases and torch's own counter, and the form of its result. No times."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText
from typer.testing import CliRunner

from fcot_vl.bench.measure import PARTS, Candidate, LoadedCandidate, Measurement
from fcot_vl.bench.speedup_bound import predicted_seconds
from fcot_vl.bench.tables import by_image_set
from fcot_vl.bench.timers import Clock
from fcot_vl.cli.app import app
from fcot_vl.cli.judge import image_sets
from fcot_vl.common.stage import StageError
from fcot_vl.data.dataset import Sample
from fcot_vl.inference.loading import load_for_inference
from fcot_vl.models.flops import (
    cache_bytes,
    decode_weight_bytes,
    layer_flops,
    prefill_flops,
    projector_flops,
    vit_flops,
)
from fcot_vl.prune.method import Method
from fcot_vl.stages.bench import bench


def page(number: int, width: int, height: int) -> Sample:
    coarse = np.random.default_rng(number).integers(0, 256, (height // 14, width // 14, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)
    messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a"}]
    return Sample(f"page-{number}", [image], messages, "forms", "test", ["a"], "anls", 1.0, 1)


PAGES = [page(0, 112, 112), page(1, 224, 112)]  # 1 and 3 tiles of 16 visual tokens


def test_too_large_a_batch_is_named(
    teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = LoadedCandidate.measure

    def limited(self: LoadedCandidate, pages: Any, new_tokens: int) -> Any:
        if len(pages) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return measure(self, pages, new_tokens)

    monkeypatch.setattr(LoadedCandidate, "measure", limited)
    candidate = Candidate("teacher", str(teacher_folder))
    with pytest.raises(ValueError, match="teacher and 3 pages together; lower --batch-size"):
        bench([candidate], PAGES, tmp_path, new_tokens=2, rounds=1, batch_size=3)


def test_operations_of_one_layer_by_hand() -> None:
    # 3 tokens, width 2, inner width 5: four projections 4*3*2*2 = 48, scores and mix 2*3*3*2 = 36, two matrices
    # 2*3*2*5 = 60 multiply-adds.
    assert layer_flops(3, 2, 5) == 2 * (48 + 36 + 60)
    # A gated feed-forward part has a third matrix; one key-value head for two heads halves two projections.
    assert layer_flops(3, 2, 5, ffn_matrices=3, kv_share=0.5) == 2 * (36 + 36 + 90)


def test_operations_of_a_pruned_prefill_by_hand() -> None:
    text = SimpleNamespace(hidden_size=2, intermediate_size=5, num_attention_heads=2, num_key_value_heads=1)
    expected = layer_flops(12, 2, 5, 3, 0.5) + 2 * layer_flops(6, 2, 5, 3, 0.5)
    assert prefill_flops(text, [12, 6, 6]) == expected


def test_cache_bytes_by_hand() -> None:
    text = SimpleNamespace(hidden_size=8, num_attention_heads=4, num_key_value_heads=2)
    # keys and values, two heads of two channels, two bytes, 12 + 6 + 6 tokens
    assert cache_bytes(text, [12, 6, 6], itemsize=2) == 2 * 2 * 2 * 2 * 24


@torch.no_grad()
def test_operations_agree_with_torchs_counter(teacher_folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(
        teacher_folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    text, n_tiles, n_tokens = model.config.text_config, 2, 37
    with FlopCounterMode(display=False) as counter:
        model.model.language_model(inputs_embeds=torch.zeros(1, n_tokens, text.hidden_size))
    assert counter.get_total_flops() == prefill_flops(text, [n_tokens] * text.num_hidden_layers)
    with FlopCounterMode(display=False) as counter:
        model.model.vision_tower(torch.zeros(n_tiles, 3, 112, 112))
    assert counter.get_total_flops() == vit_flops(model.config.vision_config, n_tiles)


def test_operations_of_compressors(make_student: Callable[..., Any]) -> None:
    plain, conv, pooling = (make_student(*which) for which in ((1,), (2,), (2, "pooling")))
    channels, width = 128, plain.config.text_config.hidden_size
    linear = 2 * (channels * width + width * width)
    assert projector_flops(plain, 3) == 3 * 16 * linear
    assert projector_flops(pooling, 3) == 3 * 8 * linear
    assert projector_flops(conv, 3) == 3 * 8 * (linear + 2 * 2 * channels * channels)


@pytest.fixture(scope="module")
def result_and_folder(
    teacher_folder: Path, make_student: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path, list[Candidate]]:
    student_folder = tmp_path_factory.mktemp("student")
    from fcot_vl import FCoTVLProcessor

    make_student(2).save_pretrained(student_folder)
    FCoTVLProcessor.from_pretrained(teacher_folder, image_seq_length=8).save_pretrained(student_folder)
    candidates = [
        Candidate("teacher", str(teacher_folder)),
        Candidate("student x2", str(student_folder)),
        Candidate("FastV", str(teacher_folder), Method("fastv", 0.5, 1)),
    ]
    out = tmp_path_factory.mktemp("bench")
    return bench(candidates, PAGES, out, new_tokens=3, rounds=2), out, candidates


def test_result_has_the_agreed_form_and_exact_counts(
    result_and_folder: tuple[dict[str, Any], Path, list[Candidate]],
) -> None:
    result, out, _ = result_and_folder
    assert result == json.loads((out / "bench.json").read_text())
    assert (result["pages"], result["new_tokens"], result["rounds"]) == (2, 3, 2)
    teacher, student, fastv = result["contenders"]
    assert [row["tiles"] for row in result["contenders"]] == [2, 2, 2]
    assert [row["visual_tokens_nominal"] for row in result["contenders"]] == [32, 16, 16]
    assert fastv["visual_tokens_layer_mean"] == (32 + 3 * 16) / 4
    per_token = 2 * 2 * 16 * 4  # keys and values, two heads of sixteen channels, float32
    n_text = teacher["prompt_tokens"] - 32
    assert teacher["kv_cache_bytes"] == 4 * per_token * (n_text + 32 + 2)
    assert student["kv_cache_bytes"] == 4 * per_token * (n_text + 16 + 2)
    assert fastv["kv_cache_bytes"] == per_token * (4 * (n_text + 2) + 32 + 3 * 16)
    assert student["flops_prefill"] < fastv["flops_prefill"] < teacher["flops_prefill"]
    assert student["flops_vit"] == fastv["flops_vit"] == teacher["flops_vit"]
    assert fastv["flops_projector"] == teacher["flops_projector"]
    for row in result["contenders"]:
        assert set(row["seconds"]) == set(PARTS)
        for spread in (*row["seconds"].values(), row["decode_tokens_per_second"], *row["faster"].values()):
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]
        assert set(row["bound"]) == {"prefill", "ttft", "decode", "end_to_end"}
        for part in row["bound"].values():
            assert all(0 < s["low"] <= s["median"] <= s["high"] for s in (part["faster"], part["share"]))
        assert row["decode_floor_seconds"] == row["decode_bytes"] / result["memory_bytes_per_second"]
    assert all(spread["median"] == 1 for spread in teacher["faster"].values())
    for part in teacher["bound"].values():
        assert part["faster"]["median"] == pytest.approx(1) and part["share"]["median"] == pytest.approx(1)
    assert (fastv["method"], fastv["keep"], fastv["layer"], student["compress_ratio"]) == ("fastv", 0.5, 1, 2)
    assert student["compressor"] == "conv" and "compressor" not in teacher


def test_a_finished_bench_is_returned_and_other_settings_are_refused(
    result_and_folder: tuple[dict[str, Any], Path, list[Candidate]], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, out, candidates = result_and_folder
    monkeypatch.setattr("fcot_vl.stages.bench.LoadedCandidate", None)  # nothing is run again
    assert bench(candidates, PAGES, out, new_tokens=3, rounds=2) == result
    with pytest.raises(StageError, match="rounds"):
        bench(candidates, PAGES, out, new_tokens=3, rounds=1)


def test_other_pages_are_timed_with_their_own_tiles_and_tokens(teacher_folder: Path, tmp_path: Path) -> None:
    """A smaller page keeps what fits its budget; fewer tiles are encoded, and have no bound from another ViT's time."""
    names = {"smaller_page": 0.5, "fewer_tiles": 0.5}
    candidates = [Candidate("teacher", str(teacher_folder))]
    candidates += [Candidate(n, str(teacher_folder), Method(n, keep)) for n, keep in names.items()]
    result = bench(candidates, PAGES, tmp_path, new_tokens=2, rounds=1, batch_size=2)
    teacher, smaller, fewer = result["contenders"]
    per_token, n_text = 2 * 2 * 16 * 4, teacher["prompt_tokens"] - 32
    assert 0 < smaller["visual_tokens_layer_mean"] == smaller["visual_tokens_nominal"] <= 16
    assert smaller["kv_cache_bytes"] == 4 * per_token * (n_text + smaller["visual_tokens_layer_mean"] + 1)
    assert fewer["tiles"] == 1 and fewer["visual_tokens_layer_mean"] == 16
    assert fewer["flops_vit"] == teacher["flops_vit"] / 2 and fewer["bound"] is None
    assert fewer["batch"]["size"] == 2


def test_last_line_is_json(teacher_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = bench([Candidate("a", str(teacher_folder))], PAGES, tmp_path, pages=1, new_tokens=2, rounds=1)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    one = Candidate("a", "nowhere")
    for call, message in [
        (lambda: bench([], PAGES, tmp_path), "at least one candidate"),
        (lambda: bench([one, one], PAGES, tmp_path), "its own name"),
        (lambda: bench([one], PAGES, tmp_path, new_tokens=1), "at least 2"),
        (lambda: bench([one], PAGES, tmp_path, rounds=0), "at least 1"),
        (lambda: bench([one], [], tmp_path), "each with an image"),
        (lambda: bench([one], {}, tmp_path), "at least one image set"),
        (lambda: bench([one], PAGES, tmp_path, batch_size=0), "batch size"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("flag", ["--candidate", "--contender"])
def test_the_former_name_of_the_flag_is_accepted_with_a_warning(
    flag: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Callable[[], str]
) -> None:
    asked: list[Candidate] = []
    monkeypatch.setattr("fcot_vl.stages.bench.bench", lambda candidates, *_, **__: asked.extend(candidates))
    command = ["bench", "--data", "pages", "--output", str(tmp_path), flag, "a=x", flag, "b=x@fastv,0.5,2"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    assert asked == [Candidate("a", "x"), Candidate("b", "x", Method("fastv", 0.5, 2))]
    assert ("--contender is now --candidate" in log()) == (flag == "--contender") == bool(log())


def test_weights_and_cache_that_a_step_reads(
    make_student: Callable[..., Any], result_and_folder: tuple[dict[str, Any], Path, list[Candidate]]
) -> None:
    # A layer: q and o of 64x64, k and v of 32x64, their biases, three matrices of 64x96, two norms; 106 rows of head.
    layer = 2 * 64 * 64 + 2 * 32 * 64 + 64 + 2 * 32 + 3 * 64 * 96 + 2 * 64
    weights = 4 * (4 * layer + 64 + 106 * 64)
    assert decode_weight_bytes(make_student(1)) == weights
    teacher, _, fastv = result_and_folder[0]["contenders"]
    per_token, n_text = 2 * 2 * 16 * 4, teacher["prompt_tokens"] - 32
    # Two steps after the first token see one and two new keys.
    assert teacher["decode_bytes"] == weights + 4 * per_token * (n_text + 32 + 1.5)
    assert fastv["decode_bytes"] == weights + per_token * (4 * (n_text + 1.5) + 32 + 3 * 16)


def test_image_sets_stand_beside_each_other_and_batches_are_answered_together(
    result_and_folder: tuple[dict[str, Any], Path, list[Candidate]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone, _, candidates = result_and_folder
    sets = {"small": PAGES[:1], "wide": PAGES[1:]}
    result = bench(candidates, sets, tmp_path, new_tokens=3, rounds=1, batch_size=2)
    assert [(one["name"], one["pages"]) for one in result["sets"]] == [("small", 1), ("wide", 1)]
    small, wide = (one["contenders"] for one in result["sets"])
    for number, row in enumerate(result["contenders"]):
        # Over both sets, the counts are those of both pages in one set, and times lie between those of the sets.
        for key in ("visual_tokens_layer_mean", "kv_cache_bytes", "flops_prefill", "prompt_tokens"):
            assert (
                row[key] == alone["contenders"][number][key] == (small[number][key] + wide[number][key]) / 2
            )
        ends = sorted(rows[number]["seconds"]["end_to_end"]["median"] for rows in (small, wide))
        assert ends[0] <= row["seconds"]["end_to_end"]["median"] <= ends[1]
        for rows in (small, wide):  # two pages at a time: of a set of one page, that page twice
            batch, single = rows[number]["batch"], rows[number]
            assert batch["size"] == 2
            assert batch["prompt_tokens"] == 2 * single["prompt_tokens"]
            assert batch["kv_cache_bytes"] == 2 * single["kv_cache_bytes"]
            seconds = batch["seconds"]["end_to_end"]["median"]
            assert batch["pages_per_second"]["median"] == pytest.approx(2 / seconds)
            assert batch["tokens_per_second"]["median"] == pytest.approx(6 / seconds)
    printed = capsys.readouterr().out
    assert "2 pages at a time" in printed and "compress ratio" in printed
    table = by_image_set({"tiny": result})
    assert [list(column.cells) for column in table.columns[:2]] == [
        ["tiny teacher", "tiny student x2", "tiny FastV"],
        ["0%", "50%", "50%"],
    ]
    assert [column.header for column in table.columns[2:]] == ["small", "faster", "wide", "faster"]
    assert next(iter(table.columns[3].cells)) == "1.00x"


def test_a_padded_batch_caches_what_its_longest_row_does(
    result_and_folder: tuple[dict[str, Any], Path, list[Candidate]],
) -> None:
    teacher, _, fastv = result_and_folder[2]
    for candidate, wide in ((teacher, [48] * 4), (fastv, [48, 24, 24, 24])):
        measured = LoadedCandidate(candidate, load_for_inference, {}).measure(PAGES, 3)
        n_text = (measured.counts["prompt_tokens"] - 64) // 2
        per_token = 2 * 2 * 16 * 4
        assert measured.counts["kv_cache_bytes"] == 2 * per_token * sum(n_text + n + 2 for n in wide)
        assert measured.counts["visual_tokens_layer_mean"] == sum(wide) * 4 / 3 / 4


def test_the_bound_by_hand() -> None:
    counts = {"flops_vit": 7.0, "flops_projector": 10.0, "flops_prefill": 100.0, "decode_bytes": 50.0}
    seconds = {"preprocess": 1.0, "vit": 2.0, "projector": 0.5, "prefill": 4.0, "ttft": 6.75, "decode": 0.25}
    first = Measurement(seconds | {"end_to_end": 8.5}, counts)
    # A quarter of the prefill, a projector that costs twice, 80% of the bytes; four steps after the first token.
    other = Measurement({}, counts | {"flops_projector": 20.0, "flops_prefill": 25.0, "decode_bytes": 40.0})
    assert predicted_seconds(first, other, 5) == {
        "prefill": 1.0,
        "ttft": 6.75 - 3 + 0.5,
        "decode": pytest.approx(0.2),
        "end_to_end": pytest.approx(8.5 - 3 + 0.5 - 4 * 0.05),
    }
    assert predicted_seconds(first, Measurement({}, counts | {"flops_vit": 8.0}), 5) is None


class _Event:
    """An event of a device that never runs: its time is its number. It may be read only after a synchronization."""

    recorded: list[_Event]
    waits: list[int]  # how many were recorded at each synchronization

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.number = len(_Event.recorded)
        _Event.recorded.append(self)

    def elapsed_time(self, later: _Event) -> float:
        assert later.number < _Event.waits[-1], "read before the device was waited for"
        return 1000.0 * (later.number - self.number)


def test_on_a_gpu_events_are_recorded_and_waited_for_once(
    teacher_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is needed: the model runs on the CPU, the events are made up."""
    _Event.recorded, _Event.waits = [], []
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: _Event.waits.append(len(_Event.recorded)))
    monkeypatch.setattr("fcot_vl.bench.measure.Clock", lambda _: Clock(torch.device("cuda")))
    loaded = LoadedCandidate(Candidate("teacher", str(teacher_folder)), load_for_inference, {})
    seconds = loaded.measure(PAGES[:1], 4).seconds
    # begun, ready, vit, projector, projected, four tokens, ended
    assert _Event.waits == [0, 10]
    assert seconds == {
        "preprocess": 1,
        "vit": 1,
        "projector": 1,
        "prefill": 1,
        "ttft": 4,
        "decode": 1,
        "end_to_end": 9,
    }


def test_a_settled_clock_of_the_host_counts_forward() -> None:
    clock = Clock(torch.device("cpu"))
    clock.mark("a")
    clock.mark("b")
    clock.stop()
    assert clock.seconds("a", "b") >= 0 and clock.seconds("b", "a") <= 0


def test_image_sets_of_the_command_line() -> None:
    assert image_sets(["pages/test"]) == "pages/test"
    assert image_sets(["docvqa=a/b", "pages/chartqa"]) == {"docvqa": "a/b", "chartqa": "pages/chartqa"}
    for wrong in (["=a"], ["a="], ["x/test", "y/test"]):
        with pytest.raises(ValueError, match="name of its own"):
            image_sets(wrong)
