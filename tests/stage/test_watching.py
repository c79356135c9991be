"""What a person sees of a training: speed, arithmetic, TensorBoard, and a page read again and again."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.flop_counter import FlopCounterMode
from training_case import assert_same_weights, post_train_config, realign_config, write_pages

from fcot_vl.data.dataset import SampleFolder
from fcot_vl.models import FCoTVLForConditionalGeneration
from fcot_vl.stages.post_train import post_train
from fcot_vl.stages.realign import realign
from fcot_vl.train import mfu as throughput
from fcot_vl.train.metrics import LossLog


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pages(tmp_path_factory.mktemp("watching") / "data")


@pytest.fixture(scope="module")
def watched(tmp_path_factory, teacher_folder, data):
    folder = tmp_path_factory.mktemp("watched")
    config = realign_config(folder, reread_steps=2, report_to="tensorboard", logging_steps=1)
    return realign(config, teacher_folder, data)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_row_says_how_fast_it_went(watched):
    for row in rows(watched / "losses.jsonl"):
        assert row["tokens_per_second"] > 0 and 0 <= row["data_wait"] <= 1
        assert row["teraflops_per_second"] > 0 and "mfu" not in row, "no peak is known for a CPU"


def test_every_student_reads_the_page_and_the_weights_do_not_notice(tmp_path, watched, teacher_folder, data):
    read = rows(watched / "rereads.jsonl")
    assert [(row["step"], row["model"]) for row in read] == [
        (step, f"ratio-{ratio}") for step in (2, 4, 6) for ratio in (2, 4)
    ]
    assert all(row["truth"] and row["page"] == "page-0" and isinstance(row["answer"], str) for row in read)
    assert len({row["answer"] for row in read}) > 1
    unwatched = realign(realign_config(tmp_path / "out", reread_steps=0), teacher_folder, data)
    assert not (unwatched / "rereads.jsonl").exists()
    for ratio in (2, 4):
        assert_same_weights(watched / f"ratio-{ratio}", unwatched / f"ratio-{ratio}")


def test_tensorboard_has_the_curves_and_the_readings(watched):
    (folder,) = {path.parent for path in watched.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    names = {"kl", "ce", "agreement"}
    wanted = {f"train/ratio-{ratio}/{name}" for ratio in (2, 4) for name in names}
    wanted |= {
        f"train/{name}" for name in ("tokens_per_second", "data_wait", "teraflops_per_second", "grad_norm")
    }
    assert wanted <= set(events.Tags()["scalars"])
    curve = [event.value for event in events.Scalars("train/ratio-2/kl")]
    assert curve == pytest.approx([row["ratio-2/kl"] for row in rows(watched / "losses.jsonl")], rel=1e-5)
    assert {"reads/ratio-2/text_summary", "reads/ratio-4/text_summary"} <= set(events.Tags()["tensors"])


def test_post_training_is_watched_too(tmp_path, teacher_folder, data):
    config = post_train_config(tmp_path / "out", reread_steps=1, max_steps=1)
    folder = post_train(config, teacher_folder, data)
    assert [row["model"] for row in rows(folder / "rereads.jsonl")] == ["student"]
    assert rows(folder / "losses.jsonl")[0]["teraflops_per_second"] > 0


def test_a_first_page_with_broken_pixels_ends_no_run(tmp_path, teacher_folder, data, monkeypatch, log):
    inner = SampleFolder.__getitem__

    def broken(self, index):
        sample = inner(self, index)
        if sample.id == "page-0":
            buffer = io.BytesIO()
            sample.images[0].save(buffer, "PNG")
            sample.images = [Image.open(io.BytesIO(buffer.getvalue()[:200]))]
        return sample

    monkeypatch.setattr(SampleFolder, "__getitem__", broken)
    folder = realign(realign_config(tmp_path / "out", reread_steps=1, max_steps=3), teacher_folder, data)
    assert "page-0: not read again while training" in log()
    assert not (folder / "rereads.jsonl").exists() and len(rows(folder / "losses.jsonl")) == 3


def test_operations_are_those_that_torch_counts(teacher_folder):
    """Decoder, head and ViT of the tiny teacher; torch counts the whole attention map, we its causal half."""
    model = FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 1, attn_implementation="eager").eval()
    text, n = model.config.text_config, 50

    def counted(run) -> float:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    ids = torch.arange(7, 7 + n)[None]
    decoder = counted(lambda: model.model.language_model(input_ids=ids))
    rotary = counted(
        lambda: model.model.language_model.rotary_emb(torch.zeros(1, n, 1), torch.arange(n)[None])
    )
    half = 2 * n * n * text.hidden_size * text.num_hidden_layers
    assert throughput.decoder_flops(text, [n]) == decoder - rotary - half
    assert throughput.decoder_flops(text, [n, n]) == 2 * throughput.decoder_flops(text, [n])
    head = counted(lambda: model.lm_head(torch.zeros(n, text.hidden_size)))
    assert throughput.head_flops(text, n) == head
    pixels = {"pixel_values": torch.zeros(3, 3, 112, 112)}
    vision = counted(lambda: model.vision(torch.zeros(3, 3, 112, 112)))
    assert throughput.vision_flops(model.config, pixels) == vision
    assert throughput.vision_flops(model.config, {}) == 0
    assert (
        throughput.vision_flops(SimpleNamespace(vision_config=SimpleNamespace(model_type="any")), pixels)
        is None
    )


def test_mfu_is_a_share_of_the_peak_of_all_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("fcot_vl.train.metrics.peak_flops", lambda: 10e12)
    log = LossLog(tmp_path / "losses.jsonl", SimpleNamespace(num_processes=2))
    assert log._speed(100, 4e12, 2.0)["mfu"] == 0.1
    assert log._speed(100, 0.0, 2.0) == {"tokens_per_second": 50.0, "data_wait": 0.0}


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("X", None),
    ],
)
def test_the_peak_of_a_device_is_found_by_its_name(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert throughput.peak_flops() == peak
