"""Fixtures of the tests of `convert`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from convert_case import REFERENCE

from fcot_vl.stages.convert import convert


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(REFERENCE, tmp_path_factory.mktemp("converted") / "out")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the recorded checkpoint that a test may break."""
    folder = tmp_path / "source"
    shutil.copytree(REFERENCE, folder)
    return folder
