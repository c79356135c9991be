"""The `report` stage: writes report.json, report.md and figures in the form of the paper's tables and figures.

This is the last stage. It reads the files of a run folder (result.json, predictions.jsonl, losses.jsonl, bench.json,
and the test pages for the four examples) and measures nothing itself: a cell that was not measured stays empty. The
report is rebuilt each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from fcot_vl.data.dataset import SampleFolder
from fcot_vl.evaluate.tasks.minidoc import TEXT_DENSE
from fcot_vl.report import figures as figures
from fcot_vl.report import ranking_figures as peer_figures
from fcot_vl.report.results import (
    SUMMED,
    Interval,
    Judged,
    RunData,
    density_retention,
    retention,
    retention_difference,
    retention_interval,
)

EXAMPLE_TASKS = ("transcribe", "forms", "chart_qa", "dense_pages")


def summarize(run: RunData) -> dict[str, Any]:
    return {
        "provenance": run.provenance(),
        "definitions": {
            "retention": "mean over tasks of score / teacher's score (the paper's Avgs)",
            "ci": "95% bootstrap over pages, paired with the teacher for retention",
            "text_dense": list(TEXT_DENSE),
        },
        "models": [_row(run, j) for j in run.judged],
        "bench": run.bench,
    }


def _row(run: RunData, model: Judged) -> dict[str, Any]:
    """Return the numbers of one model: scores are in 0..1, and retention is 1 for the teacher."""
    dense = [t for t in TEXT_DENSE if t in run.tasks]
    timed = run.timing(model.variant)
    seconds, base = model.mean("seconds_per_sample"), run.teacher.mean("seconds_per_sample")
    return {
        "label": model.variant.label,
        **asdict(model.variant),
        "seeds": model.seeds,
        "n": model.results[0]["n"],
        "mean_over_tasks": model.mean("mean_over_tasks"),
        "mean_over_tasks_seed_range": model.seed_spread(),
        "retention": retention(model, run.teacher, run.tasks),
        "retention_ci": retention_interval(model, run.teacher, run.tasks),
        "retention_seed_range": _retention_range(run, model),
        "retention_text_dense": retention(model, run.teacher, dense),
        "retention_text_dense_ci": retention_interval(model, run.teacher, dense),
        "tasks": {
            t: {
                "score": model.score("tasks", t),
                "ci": model.score_interval("tasks", t),
                "retention": retention(model, run.teacher, [t]),
                "retention_ci": retention_interval(model, run.teacher, [t]),
            }
            for t in run.tasks
        },
        "density": {
            b: dict(
                zip(
                    ("score", "retention", "retention_ci"),
                    (model.score("density", b), *density_retention(model, run.teacher, b)),
                    strict=True,
                )
            )
            for b in run.densities
        },
        "visual_tokens_nominal": model.mean("visual_tokens_nominal"),
        "visual_tokens_layer_mean": model.mean("visual_tokens_layer_mean"),
        "seconds_per_sample": seconds,
        "speedup": base / seconds if base and seconds else None,
        "bench_seconds": timed["seconds"]["end_to_end"]["median"] if timed else None,
        "bench_faster": timed["faster"]["end_to_end"]["median"] if timed else None,
    }


def _retention_range(run: RunData, model: Judged) -> Interval | None:
    """Return the lowest and highest retention over the seeds, or None for a single seed."""
    values = [
        retention(Judged(model.variant, [r], [p], [f]), run.teacher, run.tasks)
        for r, p, f in zip(model.results, model.predictions, model.folders, strict=True)
    ]
    known = [v for v in values if v is not None]
    return (min(known), max(known)) if len(known) > 1 else None


# ---------------------------------------------------------------------------------------------------- examples


@dataclass
class Example:
    """One test page with the answers of all shown models."""

    id: str
    task: str
    page: Any  # PIL image, or None if the pages are not available
    question: str
    reference: str
    answers: list[tuple[Judged, str, float]]


def _shown(run: RunData) -> list[Judged]:
    """Return the models whose answers are shown: teacher, students, and FastV at the same nominal tokens."""
    return [run.teacher, *run.find("post-train"), *run.find("teacher", "fastv")]


def find_examples(run: RunData, data: Path) -> list[Example]:
    """Return the first test page of each of four tasks, chosen by position and not by outcome."""
    pages: dict[str, Any] = {}
    try:
        samples = SampleFolder(data)
    except FileNotFoundError:
        samples = None
    wanted: list[dict[str, Any]] = []
    for task in [*EXAMPLE_TASKS, *(t for t in run.tasks if t not in EXAMPLE_TASKS)]:
        rows = [r for r in (run.teacher.predictions or [{}])[0].values() if r["task"] == task]
        wanted += rows[:1]
    wanted = wanted[:4]
    if samples is not None:
        ids = {row["id"] for row in wanted}
        for index in range(len(samples)):
            if len(pages) == len(ids):
                break
            sample = samples[index]
            if sample.id in ids:
                pages[sample.id] = sample.images[0]
    examples = []
    for row in wanted:
        answers = [
            (j, str(j.predictions[0][row["id"]]["prediction"]), float(j.predictions[0][row["id"]]["score"]))
            for j in _shown(run)
            if row["id"] in j.predictions[0]
        ]
        examples.append(
            Example(row["id"], row["task"], pages.get(row["id"]), row["question"], row["answers"][0], answers)
        )
    return examples


def draw(run: RunData, examples: list[Example], output: Path) -> dict[str, Path]:
    drawn: dict[str, Path | None] = {
        "retention": figures.retention_figure(run, output / "retention.png"),
        "ratios": peer_figures.ratio_figure(run, output / "ratios.png"),
        "peers": peer_figures.peers_figure(run, output / "peers.png"),
        "density": figures.density_figure(run, output / "density.png"),
        "losses": figures.loss_figure(run, output / "losses.png"),
        "tradeoff": figures.tradeoff_figure(run, output / "tradeoff.png"),
    }
    for number, example in enumerate(examples, 1):
        drawn[example.id] = figures.sample_figure(
            run,
            output / f"example{number}-{example.task}.png",
            example.page,
            example.question,
            example.reference,
            example.answers,
        )
    return {name: path for name, path in drawn.items() if path is not None}


# ---------------------------------------------------------------------------------------------------- writing


def _number(value: float | None, digits: int = 1, factor: float = 100.0) -> str:
    return "" if value is None else f"{factor * value:.{digits}f}"


def _with_interval(value: float | None, bounds: Sequence[float] | None, factor: float = 100.0) -> str:
    if value is None:
        return ""
    ends = f" [{_number(bounds[0], factor=factor)}, {_number(bounds[1], factor=factor)}]" if bounds else ""
    return _number(value, factor=factor) + ends


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, align, *rows])


def render(run: RunData, content: dict[str, Any], drawn: dict[str, Path], examples: list[Example]) -> str:
    facts = content["provenance"]
    parts = [
        "# Report",
        (
            f"Teacher **{facts['model']}**, {facts['samples']} test pages (data `{facts['data']}`), commit "
            f"`{facts['commit']}`, {facts['hardware']}, {facts['date']}."
        ),
        "## Scores and retention",
        _scores_table(run, content),
        (
            "Scores 0 to 100. Retention: mean over tasks of score / teacher's score, as the paper's last column; in "
            "brackets a 95% bootstrap over pages, paired with the teacher. Text-dense: the same over "
            f"{', '.join(content['definitions']['text_dense'])}. Models with several seeds: mean over seeds, the range "
            "between seeds beside it."
        ),
        _image("Retention by task", drawn.get("retention")),
        _image("Retention by ratio", drawn.get("ratios")),
        *_equal_parts(run, drawn),
        "## Tokens and time",
        _cost_table(content),
        (
            "Visual tokens a page: nominal (after the last reduction) and averaged over the decoder's layers. Seconds "
            "a page as the batched evaluation took them, other steps beside it; the table of speeds is below."
            if run.bench
            else "Visual tokens a page: nominal (after the last reduction) and averaged over the decoder's layers. "
            "Seconds a page as the batched evaluation took them."
        ),
        _image("Retention against cost", drawn.get("tradeoff")),
        *_bench_parts(run, content),
        "## Text density",
        _density_table(run, content),
        "Retention by printed characters per visual token of the teacher, all tasks pooled.",
        _image("Retention by text density", drawn.get("density")),
    ]
    if "losses" in drawn:
        parts += ["## Re-alignment", _image("Re-alignment losses", drawn["losses"])]
    if examples:
        parts += [
            "## Four pages",
            "The first test page of each of four tasks (not chosen by outcome), first seed.",
        ]
        for example in examples:
            parts += _example_parts(example, drawn)
    return "\n\n".join(p for p in parts if p) + "\n"


def _image(text: str, path: Path | None) -> str:
    return f"![{text}]({path.name})" if path else ""


def _scores_table(run: RunData, content: dict[str, Any]) -> str:
    header = [
        "model",
        "seeds",
        *(t.replace("_", " ") for t in run.tasks),
        "mean",
        "retention %",
        "between seeds",
    ]
    rows = []
    for row in content["models"]:
        spread = row["retention_seed_range"]
        rows.append(
            [
                row["label"],
                str(len(row["seeds"])),
                *(
                    _with_interval(row["tasks"][t]["score"], row["tasks"][t]["ci"], 1 if t in SUMMED else 100)
                    for t in run.tasks
                ),
                _number(row["mean_over_tasks"]),
                _with_interval(row["retention"], row["retention_ci"]),
                f"{_number(spread[0])} to {_number(spread[1])}" if spread else "",
            ]
        )
    dense = [
        [row["label"], _with_interval(row["retention_text_dense"], row["retention_text_dense_ci"])]
        for row in content["models"]
        if row["retention_text_dense"] is not None
    ]
    tables = [_table(header, rows)]
    if dense:
        tables.append(_table(["model", "retention %, text-dense tasks"], dense))
    return "\n\n".join(tables)


def _equal_parts(run: RunData, drawn: dict[str, Path]) -> list[str]:
    """Compare every student with all other models of equal visual tokens, nominal or averaged over layers."""
    rows = []
    for share, models in figures.budgets(run):
        students = [m for m in models if m.variant.stage == "post-train" and m.variant.method == "none"]
        for number, student in enumerate(students):
            before = [m.variant for m in students[: number + 1]]  # a pair of students is listed once
            for other in (m for m in models if m.variant.stage != "realign" and m.variant not in before):
                found = retention_difference(student, other, run.teacher, run.tasks)
                if found is None:
                    continue
                value, bounds = found
                verdict = "better" if bounds[0] > 0 else "worse" if bounds[1] < 0 else "not told apart"
                rows.append(
                    (
                        -share,
                        student.variant.label,
                        value,
                        [
                            student.variant.label,
                            other.variant.label,
                            _number(student.mean("visual_tokens_layer_mean"), 1, 1),
                            _number(other.mean("visual_tokens_layer_mean"), 1, 1),
                            _with_interval(value, bounds),
                            verdict,
                        ],
                    )
                )
    if not rows:
        return []
    header = [
        "student",
        "against",
        "its tokens, layer mean",
        "the other's",
        "retention, points",
        "student is",
    ]
    return [
        "## At equal tokens",
        _table(header, [row for *_, row in sorted(rows, key=lambda row: row[:3])]),
        (
            "Against everything with the student's share of visual tokens, by name or averaged over the decoder's "
            "layers: difference of retention, 95% paired bootstrap over pages; what does best first. Two students are "
            "compared over the seeds that both have; what differs between seeds is not in the interval."
        ),
        _image("All methods at equal tokens", drawn.get("peers")),
    ]


def _cost_table(content: dict[str, Any]) -> str:
    header = ["model", "tokens, nominal", "tokens, layer mean", "seconds", "faster", "retention %"]
    rows = [
        [
            row["label"],
            _number(row["visual_tokens_nominal"], 1, 1),
            _number(row["visual_tokens_layer_mean"], 1, 1),
            _number(row["seconds_per_sample"], 3, 1),
            f"{row['speedup']:.2f}x" if row["speedup"] else "",
            _number(row["retention"]),
        ]
        for row in content["models"]
    ]
    return _table(header, rows)


def _density_table(run: RunData, content: dict[str, Any]) -> str:
    if not run.densities:
        return ""
    counts = run.teacher.results[0]["density"]
    header = ["model", *(f"{b} (n={counts[b]['n']})" for b in run.densities)]
    rows = [
        [
            row["label"],
            *(
                _with_interval(row["density"][b]["retention"], row["density"][b]["retention_ci"])
                for b in run.densities
            ),
        ]
        for row in content["models"]
    ]
    return _table(header, rows)


def _bench_parts(run: RunData, content: dict[str, Any]) -> list[str]:
    """Build the speed table of every bench file (paper, Table 5), with the retention of each model."""
    parts = []
    header = ["model", "tokens, layer mean", "prefill ms", "TTFT ms", "decode tokens/s", "page ms", "faster"]
    header += ["bound", "share of it", "KV cache kB", "peak MB", "GFLOP to first token", "retention %"]
    known = {(r["compress_ratio"], r["method"], r["keep"], r["layer"]): r for r in _timed_rows(content)}
    for bench in run.bench:
        rows = []
        for row in bench["contenders"]:
            match = known.get((row["compress_ratio"], row["method"], row["keep"], row["layer"]))
            flops = row["flops_vit"] + row["flops_projector"] + row["flops_prefill"]
            seconds, faster = row["seconds"], row["faster"]["end_to_end"]
            rows.append(
                [
                    row["name"],
                    _number(row["visual_tokens_layer_mean"], 1, 1),
                    _number(seconds["prefill"]["median"], 1, 1e3),
                    _number(seconds["ttft"]["median"], 1, 1e3),
                    _number(row["decode_tokens_per_second"]["median"], 0, 1),
                    _number(seconds["end_to_end"]["median"], 1, 1e3),
                    f"{faster['median']:.2f}x [{faster['low']:.2f}, {faster['high']:.2f}]",
                    *_bound_cells(row),
                    _number(row["kv_cache_bytes"], 0, 1e-3),
                    _number(row.get("peak_extra_bytes"), 0, 1e-6),
                    _number(flops, 2, 1e-9),
                    _number(match["retention"]) if match else "",
                ]
            )
        note = (
            f"One page at a time, {bench['pages']} pages, {bench['rounds']} rounds in turns, {bench['new_tokens']} new "
            f"tokens, {bench['threads']} threads, {bench['dtype']}; medians, in brackets quartiles of the paired "
            f"speed-up over {bench['contenders'][0]['name']}. Commit `{bench['commit']}`, {bench['hardware']}, "
            f"{bench['date'][:10]}."
        )
        parts += ["## Speed", _table(header, rows), note]
        if len(bench.get("sets", [])) > 1:
            parts.append(_sets_table(bench))
        if bench.get("batch_size"):
            parts.append(_batch_table(bench))
    return parts


def _bound_cells(row: dict[str, Any]) -> list[str]:
    """Return the cells for the maximum speed-up that operations and bytes allow, and the measured share of it."""
    bound = (row.get("bound") or {}).get("end_to_end")
    return [f"{bound['faster']['median']:.2f}x", f"{bound['share']['median']:.0%}"] if bound else ["", ""]


def _sets_table(bench: dict[str, Any]) -> str:
    """Build the table of time and speed-up per page for each image set (paper, Table 5)."""
    header = ["model", *(cell for one in bench["sets"] for cell in (f"{one['name']}, ms", "faster"))]
    rows = []
    for number, row in enumerate(bench["contenders"]):
        here = [one["contenders"][number] for one in bench["sets"]]
        cells = (
            (
                _number(r["seconds"]["end_to_end"]["median"], 1, 1e3),
                f"{r['faster']['end_to_end']['median']:.2f}x",
            )
            for r in here
        )
        rows.append([row["name"], *(cell for pair in cells for cell in pair)])
    return _table(header, rows)


def _batch_table(bench: dict[str, Any]) -> str:
    """Build the table of the cost of `batch_size` pages processed together."""
    header = ["model", f"pages/s, {bench['batch_size']} together", "faster", "peak MB"]
    rows = []
    for row in bench["contenders"]:
        batch = row["batch"]
        rows.append(
            [
                row["name"],
                _number(batch["pages_per_second"]["median"], 2, 1),
                f"{batch['faster']['end_to_end']['median']:.2f}x",
                _number(batch.get("peak_extra_bytes"), 0, 1e-6),
            ]
        )
    return _table(header, rows)


def _timed_rows(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the models that a bench may have timed: the teacher with and without a baseline, and finished students."""
    return [row for row in content["models"] if row["stage"] in ("teacher", "post-train")]


def _example_parts(example: Example, drawn: dict[str, Path]) -> list[str]:
    def block(text: str) -> str:
        fence = "`" * (3 + text.count("```"))
        return f"{fence}text\n{text}\n{fence}"

    parts = [
        f"### {example.task.replace('_', ' ')}",
        _image(f"{example.task}: page and answers", drawn.get(example.id)),
        f"Page `{example.id}`. **{example.question}**",
        "Reference:",
        block(example.reference),
    ]
    for model, text, score in example.answers:
        parts += [f"{model.variant.label} (score {_number(score, 0)}):", block(text)]
    return parts


def terminal_table(run: RunData, content: dict[str, Any]) -> Table:
    """Build the table of the main figures in 80 columns; the Markdown page has the rest."""
    facts = content["provenance"]
    table = Table(
        title=f"{facts['model']}, {facts['samples']} test pages, data {facts['data']}",
        caption="kept: % of the teacher's score, mean over tasks; tokens: visual, nominal/mean over layers\n"
        f"commit {facts['commit']}; {facts['hardware']}; {facts['date']}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("model", max_width=38, overflow="fold")
    for name in ("score", "kept %", "95%", "tokens", "ms/page", "faster"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in content["models"]:
        bounds = row["retention_ci"]
        nominal, mean = row["visual_tokens_nominal"], row["visual_tokens_layer_mean"]
        tokens = _number(nominal, 0, 1)
        table.add_row(
            row["label"],
            _number(row["mean_over_tasks"]),
            _number(row["retention"]),
            f"{_number(bounds[0], 0)}-{_number(bounds[1], 0)}" if bounds else "",
            tokens if mean in (nominal, None) else f"{tokens}/{_number(mean, 0, 1)}",
            _number(row["bench_seconds"], 0, 1e3),
            f"{row['bench_faster']:.2f}x" if row["bench_faster"] else "",
        )
    return table
