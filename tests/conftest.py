"""Tiny random-weight teachers for the whole test suite, built once a session."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from global_state import changes, global_state
from PIL import Image
from scripted_server import serve as serve
from transformers import (
    GenerationConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)

import fcot_vl
from fcot_vl.models.tiny import tiny_teacher_path

TILE = 112
IMAGE_TOKEN_ID = 6
PAD_TOKEN_ID, EOS_TOKEN_ID = 0, 3

# Why a test may be skipped: it needs what is no dependency and what a machine may lack. Any other skip fails the run.
EXPECTED_SKIPS = (
    r"lmms-eval lives in an environment of its own",
    r"could not import 'deepspeed'",
    r"no font for (printed|handwritten) (Latin|Chinese) text on this system",
    r"web pages need a font that the system knows",
    r"weasyprint needs pango",
)
_skips: Counter[str] = Counter()


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        _skips[report.longrepr[2].removeprefix("Skipped: ")] += 1


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note_skip(report)


def _unexpected_skips() -> list[str]:
    return [why for why in _skips if not any(re.match(expected, why) for expected in EXPECTED_SKIPS)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _unexpected_skips() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for why in _unexpected_skips():
        terminalreporter.write_line(
            f"ERROR unexpected skip (tests/conftest.py, EXPECTED_SKIPS): {why}", red=True
        )


_state = {"last": global_state()}  # as the last test left it, or its module's fixtures behind it


@pytest.fixture(autouse=True)
def _process_state() -> Iterator[None]:
    """Fail a test that leaves the process's state changed: it, or a fixture that was set up or torn down for it."""
    yield
    before, _state["last"] = _state["last"], global_state()
    assert not (found := changes(before, _state["last"])), "\n".join(["global state changed:", *found])


def teacher_config(decoder: str = "qwen2", tile: int = TILE, **overrides: object) -> InternVLConfig:
    """112-pixel tiles, patch 14: 64 patches, 16 visual tokens of 128 channels; decoder width 64, four layers."""
    vision = InternVLVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=tile,
        patch_size=14,
        layer_scale_init_value=1.0,
        initializer_range=0.15,
    )
    sizes: dict = {
        "vocab_size": 106,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.15,
        "tie_word_embeddings": False,
        "pad_token_id": PAD_TOKEN_ID,
        "bos_token_id": None,
        "eos_token_id": EOS_TOKEN_ID,
    }
    text: PretrainedConfig = {"qwen2": Qwen2Config, "llama": LlamaConfig}[decoder](**sizes)
    settings: dict = {"tie_word_embeddings": False, **overrides}
    return InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE_TOKEN_ID,
        image_seq_length=(tile // 28) ** 2,
        **settings,
    )


def build_teacher(folder: Path, config: InternVLConfig, seed: int = 0) -> Path:
    """Save a random teacher, and the tokenizer, chat template and preprocessor settings of the embedded one."""
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(config)
    projector = model.model.multi_modal_projector
    with (
        torch.no_grad()
    ):  # the defaults (deviation 0.02, no positions) would leave the picture next to no influence
        projector.linear_1.weight.normal_(std=0.15)
        projector.linear_2.weight.normal_(std=0.15)
        model.model.vision_tower.embeddings.position_embeddings.normal_(std=0.5)
        model.model.vision_tower.embeddings.cls_token.normal_(std=0.5)
        model.lm_head.weight.normal_(std=0.15)
    model.generation_config = GenerationConfig(
        pad_token_id=PAD_TOKEN_ID, eos_token_id=EOS_TOKEN_ID, suppress_tokens=[IMAGE_TOKEN_ID]
    )
    model.save_pretrained(folder)
    source = tiny_teacher_path()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, folder / name)
    processor = fcot_vl.FCoTVLProcessor.from_pretrained(source, image_seq_length=config.image_seq_length)
    size = config.vision_config.image_size
    processor.image_processor.size = {"height": size[0], "width": size[1]}
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random InternVL teacher with a Qwen2 decoder, in the Hugging Face layout."""
    return build_teacher(tmp_path_factory.mktemp("teacher-qwen2"), teacher_config("qwen2"))


@pytest.fixture(scope="session")
def llama_teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a Llama decoder, tied embeddings and another seed."""
    config = teacher_config("llama", tie_word_embeddings=True)
    config.text_config.tie_word_embeddings = True
    return build_teacher(tmp_path_factory.mktemp("teacher-llama"), config, seed=1)


@pytest.fixture(scope="session")
def make_student(teacher_folder: Path) -> Callable[..., fcot_vl.FCoTVLForConditionalGeneration]:
    """Students of the tiny teacher in float32, by ratio, compressor, positions; compressors off their start."""

    def make(
        ratio: int, compressor: str = "conv", visual_positions: str = "compact"
    ) -> fcot_vl.FCoTVLForConditionalGeneration:
        torch.manual_seed(ratio)
        student = fcot_vl.FCoTVLForConditionalGeneration.from_teacher(
            teacher_folder, ratio, compressor, visual_positions, dtype=torch.float32
        )
        with torch.no_grad():
            for parameter in student.model.multi_modal_projector.compressor.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return student.eval()

    return make


@pytest.fixture(scope="session")
def processor_for(
    teacher_folder: Path,
) -> Callable[[fcot_vl.FCoTVLForConditionalGeneration], fcot_vl.FCoTVLProcessor]:
    """The processor that fits a student."""

    def load(student: fcot_vl.FCoTVLForConditionalGeneration) -> fcot_vl.FCoTVLProcessor:
        return fcot_vl.FCoTVLProcessor.from_pretrained(
            teacher_folder, image_seq_length=student.config.image_seq_length
        )

    return load


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A coarse random RGB picture; every 14-pixel patch differs from its neighbours."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (-(-height // 14), -(-width // 14), 3), dtype=np.uint8
    )
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)
