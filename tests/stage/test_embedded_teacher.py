"""How the embedded teacher is made: stage 1 resumes with the same weights, stage 2 looks where the characters are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
FONTS = Path(matplotlib.__file__).parent / "mpl-data" / "fonts" / "ttf"
TEXT = "The quick brown fox (No. 12) jumps over\nthe lazy dog; it costs $3.50 a day.\n"


def run(*command: str | Path) -> str:
    """Output of a Python command; a failing one shows what it said."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `packages.py` would unpack, in small: two fonts and a PDF for each split."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "fonts" / "some").mkdir(parents=True)
    shutil.copy(FONTS / "DejaVuSans.ttf", folder / "fonts" / "some" / "Sample.ttf")
    shutil.copy(FONTS / "DejaVuSerif.ttf", folder / "fonts" / "some" / "Tuffy.ttf")
    for split in ("train", "validation"):
        (folder / f"pdf-{split}").mkdir()
        with matplotlib.rc_context({"pdf.fonttype": 42}), PdfPages(folder / f"pdf-{split}" / "a.pdf") as pdf:
            figure = Figure(figsize=(8, 6))
            figure.text(0.1, 0.1, TEXT * 6, fontsize=12, parse_math=False)
            pdf.savefig(figure)
    return folder


def test_stage_1_resumes_with_the_same_weights(packages: Path, tmp_path: Path) -> None:
    script = ROOT / "tools" / "embedded_teacher" / "read_patches.py"
    run(script, packages, tmp_path / "whole", "--steps", "2", "--workers", "0")
    for steps in ("1", "2"):
        run(script, packages, tmp_path / "parts", "--steps", steps, "--workers", "0")
    whole, parts = (tmp_path / name / "state.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def test_examples_of_stage_2_look_where_the_characters_are(packages: Path) -> None:
    assert run(ROOT / "tests" / "helpers" / "embedded_teacher_check.py", packages).strip().endswith("fine")


def test_real_pages_become_records(packages: Path, tmp_path: Path) -> None:
    run(
        ROOT / "tools/embedded_teacher/real_pages.py",
        tmp_path,
        "--pdfs",
        packages / "pdf-train",
        "--blocks",
        "1",
    )
    from fcot_vl.data.dataset import SampleFolder

    (sample,) = SampleFolder(tmp_path / "pdf-blocks")
    assert sample.answers[0].splitlines()[:2] in ([*TEXT.splitlines()], [*reversed(TEXT.splitlines())])
    assert len(sample.answers[0].splitlines()) == 10
