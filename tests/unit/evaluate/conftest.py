"""Fixtures of the tests of `evaluate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

import fcot_vl
from fcot_vl.evaluate.tasks import minidoc as benchmarks


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MiniDoc's answers have five tokens at most."""
    for name, task in benchmarks.MINIDOC.items():
        monkeypatch.setitem(benchmarks.MINIDOC, name, replace(task, max_new_tokens=5))


@pytest.fixture(scope="module")
def teacher(teacher_folder: Path) -> tuple[Any, Any]:
    model = AutoModelForImageTextToText.from_pretrained(teacher_folder, dtype=torch.float32).eval()
    return model, fcot_vl.FCoTVLProcessor.from_pretrained(teacher_folder)
