"""Fixtures of the tests of `report`."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from report_case import SAID, write_run

from fcot_vl.stages.report import ReportConfig, report


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder; no test changes it."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    return folder


@pytest.fixture(scope="session")
def made(run: Path) -> tuple[Path, str]:
    """The report of `run`, and what it shows on stdout; notes the texts of each figure in `SAID`."""
    save = Figure.savefig

    def spy(self: Figure, path: Path, **options: Any) -> None:
        SAID[Path(path).name] = " ".join(t.get_text().replace("\n", " ") for t in self.texts)
        save(self, path, **options)

    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(Figure, "savefig", spy)
        return report(ReportConfig(run)), printed.getvalue()
