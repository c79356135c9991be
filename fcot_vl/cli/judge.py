"""Commands that judge models: evaluate, lmms-eval, bench, report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from fcot_vl.cli.options import Output, or_embedded_teacher

logger = logging.getLogger(__name__)

app = typer.Typer()


@app.command()
def evaluate(
    output: Output,
    data: Annotated[
        str | None,
        typer.Option(
            help="Dataset folder, or a JSON, JSON-lines or mixture YAML file of questions and answers. With "
            "--benchmark: a local copy or a Hub dataset. Default: the benchmark's own Hub dataset."
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="Public benchmark: docvqa, infovqa, chartqa, textvqa, ocrbench, ai2d, scienceqa or mme."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of the benchmark. Default: the reported one. For a dataset folder it is only recorded (test)."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of questions, from the start.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Teacher or student: folder or Hub id. Default: the embedded teacher.")
    ] = None,
    stage: Annotated[
        str, typer.Option(help="Role of the model in the report: teacher, realign, post-train or control.")
    ] = "teacher",
    method: Annotated[
        str,
        typer.Option(
            help="Training-free baseline: none, fastv, pyramiddrop, "
            "sparsevlm, visionzip, vispruner, prumerge, divprune, tome, random, "
            "uniform, smaller_page or fewer_tiles."
        ),
    ] = "none",
    keep: Annotated[
        float | None, typer.Option(help="Share of visual tokens that the baseline keeps, 0 to 1.")
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="Layer K of FastV: the first decoder layer with fewer tokens.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the model's training, and of random dropping.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of questions decoded together.")] = 64,
    max_skipped: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Maximum share of unusable questions in a benchmark or file, 0 to 1; the run stops above it.",
        ),
    ] = 0.01,
) -> None:
    """Score a model, with or without a training-free baseline, on a dataset folder or a public benchmark."""
    from fcot_vl.prune.method import Method
    from fcot_vl.stages.evaluate import evaluate as run

    baseline = Method(method, keep, layer, seed if method == "random" else 0)
    run(
        or_embedded_teacher(model),
        data,
        output,
        stage=stage,
        method=baseline,
        seed=seed,
        split=split,
        batch_size=batch_size,
        benchmark=benchmark,
        limit=limit,
        max_skipped=max_skipped,
    )


@app.command()
def lmms_eval(
    data: Annotated[
        Path,
        typer.Option(
            help="Data: shards, meta JSON, LLaVA JSON or mixture YAML for tasks with DocVQA's columns, "
            "else a saved DatasetDict."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Output folder, to be passed to lmms-eval as --include_path.")],
    task: Annotated[str, typer.Option(help="Task of lmms-eval.")] = "docvqa_val",
    name: Annotated[
        str | None,
        typer.Option(help="Name of the new task. Default: the name of --task with the suffix _local."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a DatasetDict that has several.")] = None,
    bare: Annotated[
        bool,
        typer.Option("--bare", help="Ask the questions without the text that the task puts around them."),
    ] = False,
) -> None:
    """Write local data and a task file for lmms-eval. See `make eval-env`."""
    from fcot_vl.stages.lmms_eval import LmmsTaskConfig, lmms_task

    lmms_task(LmmsTaskConfig(data, output, task, name, split, bare))


@app.command()
def bench(
    data: Annotated[
        list[str],
        typer.Option(
            help="Dataset folder written by `synthesize`, or NAME=FOLDER. Repeat to compare image sets."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(help="Output folder. A finished run is recognized; an interrupted one starts again."),
    ],
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            help="Candidate: NAME=FOLDER or NAME=FOLDER@METHOD,KEEP[,LAYER]; without FOLDER, the embedded teacher. "
            "At least one is required. Repeat for several; speed-ups are over the first."
        ),
    ] = None,
    contender: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    pages: Annotated[int, typer.Option(min=1, help="Number of pages of each image set.")] = 8,
    new_tokens: Annotated[int, typer.Option(min=2, help="Number of tokens to decode per page.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Number of measurements per page.")] = 5,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Batch size of an additional throughput measurement. Default: none."),
    ] = None,
) -> None:
    """Time models and baselines on the same pages: prefill, decode, end to end, KV cache, operations."""
    from fcot_vl.stages.bench import bench as run

    if contender:
        logger.warning("--contender is now --candidate; the old name will be removed in the next version")
    run(
        [_candidate(text) for text in [*(candidate or []), *(contender or [])]],
        image_sets(data),
        output,
        pages=pages,
        new_tokens=new_tokens,
        rounds=rounds,
        batch_size=batch_size,
    )


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run. All results below it are read.")],
    output: Annotated[
        Path | None, typer.Option(help="Output folder. Default: `report` in the run folder.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Dataset folder for the examples. Default: `data/test` in the run folder."),
    ] = None,
) -> None:
    """Write a report of a run: tables, figures and examples."""
    from fcot_vl.stages.report import ReportConfig
    from fcot_vl.stages.report import report as make

    make(ReportConfig(run, output, data))


def image_sets(given: list[str]) -> str | dict[str, str]:
    """Parse image sets: one folder, or several by name or folder name."""
    if len(given) == 1 and "=" not in given[0]:
        return given[0]
    sets: dict[str, str] = {}
    for text in given:
        name, named, folder = text.partition("=")
        name, folder = (name, folder) if named else (Path(text).name, text)
        if not name or not folder or name in sets:
            raise ValueError(f"--data {text}: expected NAME=FOLDER, with a name of its own")
        sets[name] = folder
    return sets


def _candidate(text: str) -> Any:
    """Parse a candidate such as `student=out/student-4x` or `fastv=out/teacher@fastv,0.5,2`."""
    from fcot_vl.bench.measure import Candidate
    from fcot_vl.prune.method import Method

    name, given, rest = text.partition("=")
    folder, _, baseline = rest.partition("@")
    method, *numbers = baseline.split(",") if baseline else ["none"]
    try:
        keep = float(numbers[0]) if numbers else None
        layer = int(numbers[1]) if len(numbers) > 1 else None
    except ValueError:
        raise ValueError(
            f"--candidate {text}: expected METHOD,KEEP[,LAYER] after @, such as fastv,0.5,2"
        ) from None
    if not given or not name or len(numbers) > 2:
        raise ValueError(f"--candidate {text}: expected NAME=FOLDER or NAME=FOLDER@METHOD,KEEP[,LAYER]")
    return Candidate(name, or_embedded_teacher(folder or None), Method(method, keep, layer))
