"""The `report` stage: turn the results of a run folder into tables, figures and examples."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from fcot_vl.common.console import show
from fcot_vl.common.files import write_json
from fcot_vl.common.stage import open_stage, read_stage
from fcot_vl.report.examples import find_examples
from fcot_vl.report.figures.draw import draw_examples, draw_figures
from fcot_vl.report.markdown import render
from fcot_vl.report.results import gather
from fcot_vl.report.summary import summarize
from fcot_vl.report.terminal import terminal_table

logger = logging.getLogger(__name__)


@dataclass
class ReportConfig:
    """Settings of the report stage."""

    run: Path
    """Folder of a run. Everything below it is read."""
    output: Path | None = None
    """Output folder of the report; `run`/report by default."""
    data: Path | None = None
    """Folder with the test pages for the examples; `run`/data/test by default."""


def report(config: ReportConfig) -> Path:
    """Write the report, print its main table and return the report's folder.

    Raises:
        ReportError: If there is no result of the teacher, or the results cannot be compared.
        StageError: If the output folder belongs to another stage.
    """
    run = Path(config.run)
    output = Path(config.output or run / "report")
    logger.info(f"report: reading {run}, writing {output}")
    found = gather(run)
    _remove_report(output)
    inputs = {str(path.parent.relative_to(run)): _digest(path) for path in found.results}
    stage = open_stage(output, "report", {"run": str(run)}, inputs)
    examples = find_examples(found, Path(config.data or run / "data" / "test"))
    figures, example_figures = draw_figures(found, output), draw_examples(found, examples, output)
    content = summarize(found, figures, examples, example_figures)
    write_json(output / "report.json", content)
    (output / "report.md").write_text(render(content), encoding="utf-8")
    show(terminal_table(content))
    stage.finish({row["label"]: row["retention"] for row in content["models"]})
    logger.info(f"report: {output / 'report.md'}")
    return output


def _remove_report(folder: Path) -> None:
    """Delete the files of an earlier report and no others."""
    if not (folder / "stage.json").exists() or read_stage(folder)["stage"] != "report":
        return
    for path in [*folder.glob("*.png"), *(folder / name for name in ("report.md", "report.json"))]:
        path.unlink(missing_ok=True)
    (folder / "stage.json").unlink()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
