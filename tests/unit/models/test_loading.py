"""Checkpoints of strangers: code that comes with one never runs, and a layout that must be converted is named."""

from __future__ import annotations

import ast
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from teacher_case import picture

from fcot_vl.common.errors import CheckpointError
from fcot_vl.data.chat_format import SampleError
from fcot_vl.data.dataset import Sample
from fcot_vl.inference.loading import load_for_inference
from fcot_vl.instruct.backends.local import Decoding, LocalLlm
from fcot_vl.models.auto import family_of, load_processor, read_config
from fcot_vl.prune.method import Method
from fcot_vl.stages.ask import ask
from fcot_vl.stages.evaluate import evaluate
from fcot_vl.stages.post_train import load_for_training

PACKAGE = Path(__file__).resolve().parents[3] / "fcot_vl"
CODE = "from pathlib import Path\nPath({marker!r}).write_text('ran')\nclass C: pass\n"
CLASSES = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoProcessor")


def with_code(folder: Path, config: dict) -> Path:
    """Write a folder with a `config.json`, and code beside it that leaves a file when it runs."""
    folder.mkdir(exist_ok=True)
    marker = str(folder / "ran")
    (folder / "code.py").write_text(CODE.format(marker=marker), encoding="utf-8")
    config["auto_map"] = dict.fromkeys(CLASSES, "code.C")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return with_code(
        tmp_path / "original", {"model_type": "internvl_chat", "llm_config": {"model_type": "internlm2"}}
    )


@pytest.fixture(autouse=True)
def yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer `y` to whatever is asked, and let nothing wait."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 50))


def sample() -> Sample:
    return Sample(
        "a", [picture(112, 112)], [{"role": "user", "content": "What?"}], "", "s", ["x"], metric="exact"
    )


@pytest.mark.parametrize(
    "load",
    [
        read_config,
        family_of,
        load_processor,
        load_for_inference,
        load_for_training,
        lambda folder: LocalLlm(str(folder), Decoding(4), 1).load_model(),
        lambda folder: evaluate(folder, [sample()], folder / "out", method=Method()),
    ],
)
def test_original_layout_names_convert_and_runs_nothing(original: Path, load: Callable) -> None:
    with pytest.raises(ValueError, match=r"original OpenGVLab layout.* fcot-vl convert ") as raised:
        load(original)
    assert "\n" not in str(raised.value)
    assert not (original / "ran").exists()


def test_ask_names_convert(original: Path, tmp_path: Path) -> None:
    picture(60, 60).save(tmp_path / "p.png")
    with pytest.raises(CheckpointError, match="fcot-vl convert"):
        ask(tmp_path / "p.png", "What?", original)
    assert not (original / "ran").exists()


@pytest.mark.parametrize(
    "load", [load_for_inference, lambda folder: LocalLlm(str(folder), Decoding(4), 1).load_model()]
)
def test_other_code_never_runs(tmp_path: Path, load: Callable) -> None:
    folder = with_code(tmp_path / "own", {"model_type": "made_up_by_a_stranger"})
    with pytest.raises(ValueError, match="code that comes with it, which is never run"):
        load(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "file", ["tokenizer_config.json", "preprocessor_config.json", "processor_config.json"]
)
def test_code_of_a_part_never_runs(teacher_folder: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "part"
    shutil.copytree(teacher_folder, folder)
    with_code(folder, json.loads((folder / "config.json").read_text()))
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "code.py", folder / "custom_generate" / "generate.py")
    part = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    for key in ("tokenizer_class", "image_processor_type", "processor_class"):
        part[key] = "MadeUp"
    part["auto_map"] = {
        "AutoTokenizer": ["code.C", "code.C"],
        "AutoImageProcessor": "code.C",
        "AutoProcessor": "code.C",
    }
    (folder / file).write_text(json.dumps(part), encoding="utf-8")
    try:
        model, _ = load_for_inference(folder)
        assert model.config.model_type == "internvl"
    except CheckpointError as error:
        assert "\n" not in str(error)
    assert not (folder / "ran").exists()


def test_kernel_of_the_hub_is_refused(teacher_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kernel"
    shutil.copytree(teacher_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["attn_implementation"] = "someone/flash"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match="attn_implementation to 'someone/flash', code from the Hub"):
        load_for_inference(folder)


@pytest.mark.parametrize(
    "text", ["[]", "{", "3", '{"model_type": 3}', '{"model_type": "internvl", "text_config": 1}']
)
def test_damaged_configuration_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError) as raised:
        load_for_inference(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_error_can_be_written_whatever_it_quotes() -> None:
    for error in (CheckpointError("weight \ud83d"), SampleError("kind", "text \ud83d")):
        assert str(error).encode().endswith(b"?")


def test_processor_does_not_keep_the_option(teacher_folder: Path, tmp_path: Path) -> None:
    load_processor(teacher_folder).save_pretrained(tmp_path)
    assert all("trust_remote" not in path.read_text() for path in tmp_path.glob("*.json"))


def test_every_load_says_that_no_code_is_trusted() -> None:
    calls = [
        (path.relative_to(PACKAGE), node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("from_pretrained", "load_custom_generate", "get_class_from_dynamic_module")
    ]
    silent = []
    for path, call in calls:
        said = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        # `**kwargs` (None here) passes on what a class of ours was given; `trusted` is that too, False by default.
        if None not in said and said.get("trust_remote_code") not in ("False", "trusted"):
            silent.append(f"{path}, line {call.lineno}")
    assert len(calls) > 8
    assert silent == []
