"""Content of OCR-like pages: a function of the seed alone, in whatever process it is drawn."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

DRAW = """
import random
from fcot_vl.synthesize.ocr import content
for locale in sorted({name for names in content.LOCALES.values() for name in names}):
    fake = content._faker(locale)
    fake.seed_instance(5)
    print([(fake.city(), fake.name(), fake.company(), fake.address(), fake.words(3)) for _ in range(20)])
"""


@pytest.mark.slow
def test_content_does_not_depend_on_the_hash_seed_of_the_process() -> None:
    drawn = [
        subprocess.run(
            [sys.executable, "-c", DRAW],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert drawn[0]
    assert drawn[0] == drawn[1]
