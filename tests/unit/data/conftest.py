"""Fixtures of the tests of `data`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A picture that no encoder makes small, so that a part of its file is a part of its pixels."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return path
