"""Pipeline of a recipe: synthesize, realign, post-train, evaluate, bench and report, each step a resumable stage.

The command line uses this module, which uses all other packages. A run is a list of steps with their dependencies. With
`jobs` above 1, independent steps run in parallel in separate processes (small models do not fill a machine), and their
output goes to `logs/`. After an interruption, rerun the same recipe: finished stages return at once and the interrupted
one resumes.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from transformers import AutoConfig

from fcot_vl.bench.measure import Candidate
from fcot_vl.common.config import build, find_recipe, read_recipe
from fcot_vl.common.errors import one_line
from fcot_vl.common.hashing import hash_files, hash_module
from fcot_vl.data.dataset import SampleFolder
from fcot_vl.merge.config import MergeConfig
from fcot_vl.models import FCoTVLProcessor
from fcot_vl.models.compressors.registry import COMPRESSORS
from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.prune.method import Method
from fcot_vl.stages.bench import bench
from fcot_vl.stages.evaluate import evaluate
from fcot_vl.stages.label import LabelConfig, label
from fcot_vl.stages.merge import merge
from fcot_vl.stages.post_train import PostTrainConfig, load_for_training, post_train
from fcot_vl.stages.realign import RealignConfig, realign
from fcot_vl.stages.report import ReportConfig, report
from fcot_vl.stages.synthesize import OCR_TASKS, synthesize
from fcot_vl.train.feature_cache import cache_features
from fcot_vl.train.snapshots import CHECKPOINTS

VALIDATION = Path("data", "validation")
LONGEST_LABEL = 700  # tokens
MOST_UNLABELLED = 0.3  # share of pages on which the teacher finds no end; they are left out


class PipelineError(ValueError):
    """Error for a failed step; the message gives the step, its error and the path of its output."""


@dataclass
class SynthesizeSection:
    """Settings of synthesis: numbers of MiniDoc pages, and their seeds."""

    train: int
    """Number of pages of post-training, drawn anew for every training seed."""
    test: int
    realign: int = 0
    """Number of pages of re-alignment: those of `OCR_TASKS`, answered by the teacher (paper, section 3.1), drawn anew
    for every training seed. 0: re-alignment uses the pages of post-training and their true answers."""
    seed: int = 0
    test_seed: int | None = None
    """Seed of the test pages. Default: `seed`."""
    shard_size: int = 500


@dataclass
class EvaluateSection:
    """Settings of evaluation."""

    batch_size: int = 64


@dataclass
class PeersSection:
    """Training-free baselines, applied to the teacher."""

    methods: list[str] = field(default_factory=list)
    keep: list[float] = field(default_factory=list)
    """Nominal shares of visual tokens kept."""
    layers: list[int] = field(default_factory=list)
    """Values of K for FastV; each is evaluated."""
    equal_layer_mean: bool = True
    """Run each method also at the share where its mean cost over the decoder's layers equals that of a student."""


@dataclass
class MergeSection:
    """Settings of merging the checkpoints that post-training kept (paper, Table 4); see `merge`."""

    methods: list[str] = field(default_factory=list)
    checkpoints: int = 5
    """Number of kept checkpoints to merge, counted from the last one."""
    validation: int = 160
    """Number of pages for scoring Shapley values, never the reported ones."""


@dataclass
class BenchSection:
    """Settings of time measurement; see `bench`."""

    pages: int = 8
    new_tokens: int = 64
    rounds: int = 5


@dataclass
class Recipe:
    """Recipe of one run. The section of a training stage holds settings of its dataclass."""

    output: Path
    synthesize: dict[str, Any]
    realign: dict[str, Any]
    post_train: dict[str, Any]
    evaluate: dict[str, Any] = field(default_factory=dict)
    peers: dict[str, Any] = field(default_factory=dict)
    bench: dict[str, Any] = field(default_factory=dict)
    merge: dict[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    """Folder or hub id of an InternVL in the Hugging Face layout. Default: the embedded teacher."""
    seeds: list[int] = field(default_factory=lambda: [0])
    control_seeds: list[int] = field(default_factory=list)
    """Seeds for post-training the teacher on the same data, without compression."""
    compressors: list[str] = field(default_factory=list)
    """Compressors to compare (paper, Table 3), trained with the same settings. Default: only that of `realign`."""
    jobs: int = 1
    """Number of steps that run in parallel."""
    threads: int = 1
    """Number of CPU threads of each step. It affects the result, because it determines the order of sums."""

    def __post_init__(self) -> None:
        if not self.seeds or any(len(set(s)) < len(s) for s in (self.seeds, self.control_seeds)):
            raise ValueError(
                "seeds must name at least one seed; seeds and control_seeds name each once, "
                f"got {self.seeds} and {self.control_seeds}"
            )
        if self.jobs < 1 or self.threads < 1:
            raise ValueError(f"jobs and threads must be at least 1, got {self.jobs} and {self.threads}")
        if unknown := [name for name in self.compressors if name not in COMPRESSORS]:
            raise ValueError(f"compressors: {unknown[0]!r} is unknown; choose from {', '.join(COMPRESSORS)}")
        if len(set(self.compressors)) < len(self.compressors):
            raise ValueError(f"compressors name each once, got {self.compressors}")
        for config, section in (
            (SynthesizeSection, self.synthesize),
            (EvaluateSection, self.evaluate),
            (PeersSection, self.peers),
            (BenchSection, self.bench),
            (MergeSection, self.merge),
        ):
            build(config, section)
        merge = build(MergeSection, self.merge)
        kept = self.post_train.get("keep_checkpoints", 0)
        if merge.methods and not 2 <= merge.checkpoints <= kept:
            raise ValueError(
                f"merge.checkpoints is {merge.checkpoints}: post_train.keep_checkpoints ({kept}) must keep as "
                "many, and a merge needs two"
            )

    @property
    def training_seeds(self) -> list[int]:
        """Every seed that something is trained with."""
        return list(dict.fromkeys([*self.seeds, *self.control_seeds]))


@dataclass
class Step:
    """One call of a stage, with its dependencies."""

    name: str
    call: Callable[[], object]
    after: tuple[str, ...] = ()
    rows: Path | None = None
    """File that gains a row with every unit of progress, for the progress bar."""
    total: int | None = None
    """Number of rows at the end."""
    alone: bool = False
    """Run no other step at the same time, because this one measures time."""


def run_recipe(name: str | Path, console: Console | None = None, **overrides: Any) -> Path:
    """Run a recipe through all stages and return the report's folder.

    Args:
        overrides: Values that replace top-level values of the recipe (`output`, `seeds`, `jobs`, ...).

    Raises:
        RecipeError: If the recipe cannot be used.
        PipelineError: If a step failed.
    """
    console = console or Console()
    recipe = build(Recipe, read_recipe(name), **{k: v for k, v in overrides.items() if v is not None})
    steps = plan(recipe)
    for reason in peers(recipe, recipe.teacher or str(tiny_teacher_path()))[1]:
        console.print(f"left out: {reason}", style="dim", markup=False)
    folder = Path(recipe.output)
    title = find_recipe(name).stem
    console.print(
        f"[bold]{title}[/bold]: {len(steps)} steps into {folder} (seeds {', '.join(map(str, recipe.seeds))}; "
        f"{recipe.jobs} at a time, {recipe.threads} thread{'s' if recipe.threads > 1 else ''} each). "
        "The students are trained here and now; nothing pre-trained stands in for them. "
        "You can interrupt at any time. Rerun the same command to resume."
    )
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.jobs == 1:
        _run_here(steps, recipe.threads, console)
    else:
        _run_beside(steps, recipe.jobs, recipe.threads, folder / "logs", console)
    output = report(ReportConfig(folder), console)
    console.print(f"{title}: {_minutes(time.monotonic() - started)} in this run")
    return output


# ------------------------------------------------------------------------------------------------------- the plan


def plan(recipe: Recipe) -> list[Step]:
    """Return the steps of a recipe.

    Every step comes after those it depends on, and the long training chains come before the baselines.
    """
    run = Path(recipe.output)
    teacher = recipe.teacher or str(tiny_teacher_path())
    data = build(SynthesizeSection, recipe.synthesize)
    test = run / "data" / "test"
    test_seed = data.seed if data.test_seed is None else data.test_seed
    steps = [
        Step(
            "synthesize test", partial(synthesize, test, "test", data.test, test_seed, None, data.shard_size)
        )
    ]
    merges = build(MergeSection, recipe.merge)
    if merges.methods:
        call = partial(
            synthesize, run / VALIDATION, "validation", merges.validation, data.seed, None, data.shard_size
        )
        steps.append(Step("synthesize validation", call))
    training = {seed: _training_data(recipe, teacher, seed, steps) for seed in recipe.training_seeds}
    judge = partial(_judge_step, recipe, test)
    steps.append(judge("teacher", teacher, "teacher", None, recipe.seeds[0], ()))
    ratios = build(RealignConfig, recipe.realign, output_dir="unused").ratios
    trained_students: list[tuple[str, Path, str]] = []  # students of the first seed: name, folder, step
    for seed, compressor in product(recipe.seeds, recipe.compressors or [""]):
        here = run / f"seed-{seed}" / compressor
        tag = f"{compressor} " if compressor else ""
        stage_1, stage_2 = training[seed]
        section = stage_1.section(recipe.realign) | ({"compressor": compressor} if compressor else {})
        aligned = f"realign {tag}seed {seed}"
        steps.append(
            _train_step(
                aligned, _realign, section, teacher, stage_1.folder, here / "realign", seed, stage_1.ready
            )
        )
        section = stage_2.section(recipe.post_train)
        for ratio in ratios:
            student, trained = here / "realign" / f"ratio-{ratio}", here / f"post-train-{ratio}"
            name = f"post-train {tag}{ratio}x seed {seed}"
            end = f"{ratio}-{compressor}-seed-{seed}" if compressor else f"{ratio}-seed-{seed}"
            steps += [
                judge(f"realign-{end}", student, "realign", None, seed, (aligned,)),
                _train_step(
                    name, _post_train, section, student, stage_2.folder, trained, seed, stage_2.ready, aligned
                ),
                judge(f"post-train-{end}", trained, "post-train", None, seed, (name,)),
                *_merge_steps(recipe, student, trained, ratio, seed, name, judge, compressor),
            ]
            if seed == recipe.seeds[0]:
                trained_students.append((f"student {ratio}x {compressor}".rstrip(), trained, name))
    for seed in recipe.control_seeds:
        name = f"control seed {seed}"
        control, pages = run / f"seed-{seed}" / "control", training[seed][1]
        section = pages.section(recipe.post_train)
        steps += [
            _train_step(name, _post_train, section, teacher, pages.folder, control, seed, pages.ready),
            judge(f"control-seed-{seed}", control, "control", None, seed, (name,)),
        ]
    rivals, _ = peers(recipe, teacher)
    steps += [judge(name, teacher, "teacher", method, seed, ()) for name, method, seed in rivals]
    timed = [
        Candidate("teacher", teacher),
        *(Candidate(name, str(folder)) for name, folder, _ in trained_students),
        *(Candidate(str(method), teacher, method) for _, method, seed in rivals if seed == recipe.seeds[0]),
    ]
    settings = asdict(build(BenchSection, recipe.bench))
    before = tuple(step for _, _, step in trained_students)
    steps.append(
        Step(
            "bench",
            partial(bench, timed, test, run / "bench", **settings),
            ("synthesize test", *before),
            alone=True,
        )
    )
    return steps


@dataclass(frozen=True)
class TrainingData:
    """Training pages of one stage and one seed, and the name of the step after which they are ready."""

    folder: Path
    ready: str
    features: Path | None

    def section(self, section: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of a training on these pages."""
        return section | ({} if self.features is None else {"features_folder": str(self.features)})


def _training_data(
    recipe: Recipe, teacher: str, seed: int, steps: list[Step]
) -> tuple[TrainingData, TrainingData]:
    """Add the steps that make the training pages of a seed; return the pages of stage 1 and of stage 2."""
    data = build(SynthesizeSection, recipe.synthesize)
    folder = Path(recipe.output) / "data"
    drawn = data.seed + seed

    def ready(name: str, made: Path, after: str, cached: bool) -> TrainingData:
        if not cached:
            return TrainingData(made, after, None)
        features = Path(recipe.output) / "features" / made.name
        step = f"features {name} seed {seed}"
        steps.append(Step(step, partial(_features, teacher, made, features), (after,)))
        return TrainingData(made, step, features)

    caches = [bool(section.get("cache_features")) for section in (recipe.realign, recipe.post_train)]
    train = folder / f"train-seed-{seed}"
    step = f"synthesize train seed {seed}"
    steps.append(Step(step, partial(synthesize, train, "train", data.train, drawn, None, data.shard_size)))
    if not data.realign:
        both = ready("train", train, step, any(caches))
        return both, both
    stage_2 = ready("train", train, step, caches[1])
    printed, labelled = folder / f"realign-seed-{seed}-unlabelled", folder / f"realign-seed-{seed}"
    step = f"synthesize realign seed {seed}"
    call = partial(synthesize, printed, "train", data.realign, drawn, list(OCR_TASKS), data.shard_size)
    steps.append(Step(step, call))
    batch = build(EvaluateSection, recipe.evaluate).batch_size
    steps.append(
        Step(f"label realign seed {seed}", partial(_label, teacher, printed, labelled, batch, seed), (step,))
    )
    return ready("realign", labelled, f"label realign seed {seed}", caches[0]), stage_2


def _train_step(
    name: str,
    call: Callable[..., Path],
    section: dict[str, Any],
    model: str | Path,
    data: Path,
    output: Path,
    seed: int,
    *after: str,
) -> Step:
    steps = section.get("max_steps")
    return Step(
        name, partial(call, section, model, data, output, seed), after, output / "losses.jsonl", steps
    )


def _judge_step(
    recipe: Recipe,
    test: Path,
    name: str,
    model: str | Path,
    stage: str,
    method: Method | None,
    seed: int,
    after: tuple[str, ...],
) -> Step:
    section = build(EvaluateSection, recipe.evaluate)
    out = Path(recipe.output) / "evaluate" / name
    call = partial(
        evaluate, model, test, out, stage=stage, method=method, seed=seed, batch_size=section.batch_size
    )
    pages = build(SynthesizeSection, recipe.synthesize).test
    return Step(f"evaluate {name}", call, ("synthesize test", *after), out / "predictions.jsonl", pages)


def _merge_steps(
    recipe: Recipe,
    student: Path,
    trained: Path,
    ratio: int,
    seed: int,
    after: str,
    judge: Callable[..., Step],
    compressor: str,
) -> list[Step]:
    """Return the merge steps of one student's checkpoints, each with its evaluation."""
    section = build(MergeSection, recipe.merge)
    kept = int(recipe.post_train.get("keep_checkpoints", 0))
    steps = []
    for method in section.methods:
        of = f"{ratio}-{compressor}" if compressor else str(ratio)
        name, output = f"merge-{of}-{method}-seed-{seed}", trained.with_name(f"merge-{ratio}-{method}")
        config = {
            "base": None if method == "average" else student,
            "data": recipe.output / VALIDATION if method == "shapley" else None,
            "batch_size": build(EvaluateSection, recipe.evaluate).batch_size,
        }
        call = partial(_merge, method, trained, section.checkpoints, kept, output, config)
        steps += [
            Step(name, call, (after, "synthesize validation")),
            judge(name, output, "post-train", None, seed, (name,)),
        ]
    return steps


def peers(recipe: Recipe, teacher: str) -> tuple[list[tuple[str, Method, int]], list[str]]:
    """Return (name, method, seed) of every training-free baseline, and the reasons why others were left out.

    Each method is used at each nominal share, and again where its mean share over the decoder's layers has that value.
    Random dropping runs once per seed, every other method once.
    """
    section = build(PeersSection, recipe.peers)
    depth = AutoConfig.from_pretrained(teacher).text_config.num_hidden_layers
    found: dict[Method, str] = {}
    left_out = []
    for name in section.methods:
        for keep in section.keep:
            for layer in section.layers if name == "fastv" else [None]:
                nominal = Method(name, keep, layer)
                for equal in (False, True) if section.equal_layer_mean else (False,):
                    try:
                        method = nominal.at_layer_mean(keep, depth) if equal else nominal
                        method.drops(depth)
                    except ValueError as error:
                        left_out.append(f"{nominal}: {one_line(error)}")
                        continue
                    at = f"-k{layer}" if layer else ""
                    found.setdefault(method, f"{name}{at}-{100 * (method.keep or 0):.3g}")
    every = []
    for method, called in found.items():
        if method.name == "random":
            every += [(f"{called}-seed-{seed}", replace(method, seed=seed), seed) for seed in recipe.seeds]
        else:
            every.append((called, method, recipe.seeds[0]))
    return every, list(dict.fromkeys(left_out))


# ------------------------------------------------------------------------------------- calls that a process can take


def _merge(method: str, trained: Path, count: int, kept: int, output: Path, config: dict[str, Any]) -> Path:
    found = sorted((trained / CHECKPOINTS).glob("step-*"))
    if len(found) != kept:
        raise ValueError(
            f"{trained / CHECKPOINTS}: {len(found)} checkpoints, {kept} were to be kept; post-train again"
        )
    return merge(MergeConfig(found[-count:], output, method=method, **config))


def _label(teacher: str, pages: Path, output: Path, batch_size: int, seed: int) -> Path:
    """Let the teacher answer the questions about the pages."""
    return label(
        LabelConfig(
            output,
            str(pages),
            teacher=teacher,
            max_new_tokens=LONGEST_LABEL,
            max_skipped=MOST_UNLABELLED,
            batch_size=batch_size,
            seed=seed,
        )
    )


def _features(teacher: str, data: Path, folder: Path) -> None:
    """Compute the ViT features of the training pages, which several training runs then share."""
    samples = SampleFolder(data)
    model = load_for_training(teacher).eval()
    inputs = {"vision": hash_module(model.model.vision_tower), "data": hash_files(samples.shards)}
    processor = FCoTVLProcessor.from_pretrained(teacher)
    cache_features(folder, model.get_visual_features, samples, processor, inputs)


def _realign(section: dict[str, Any], teacher: str, data: Path, output: Path, seed: int) -> Path:
    return realign(build(RealignConfig, section, output_dir=str(output), seed=seed), teacher, data)


def _post_train(section: dict[str, Any], model: str | Path, data: Path, output: Path, seed: int) -> Path:
    return post_train(build(PostTrainConfig, section, output_dir=str(output), seed=seed), model, data)


# ----------------------------------------------------------------------------------------------------- running them


def _run_here(steps: list[Step], threads: int, console: Console) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for number, step in enumerate(steps, 1):
            started = time.monotonic()
            console.rule(f"[{number}/{len(steps)}] {step.name}", align="left", style="dim")
            step.call()
            console.print(f"[dim]{step.name}: {_minutes(time.monotonic() - started)}[/dim]")
    finally:
        torch.set_num_threads(before)


def _run_beside(steps: list[Step], jobs: int, threads: int, logs: Path, console: Console) -> None:
    logs.mkdir(parents=True, exist_ok=True)
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin_worker, (threads, os.getpid()))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    running: dict[Future[str | None], _Running] = {}
    try:
        with Progress(*columns, console=console, transient=True) as bars:
            _schedule(steps, jobs, pool, running, logs, bars)
    except BrokenProcessPool:
        names = ", ".join(r.step.name for r in running.values())
        raise PipelineError(
            f"a process ended unexpectedly (out of memory?) during: {names}; see {logs}, lower `jobs`, run again"
        ) from None
    except BaseException:
        for process in list(pool._processes.values()):  # a step still running would block the next run
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass
class _Running:
    """Step that runs in a process, with its log and its progress bar."""

    step: Step
    log: Path
    bar: TaskID
    started: float = field(default_factory=time.monotonic)


def _schedule(
    steps: list[Step],
    jobs: int,
    pool: ProcessPoolExecutor,
    running: dict[Future[str | None], _Running],
    logs: Path,
    bars: Progress,
) -> None:
    """Start every step once its dependencies are done, `jobs` at a time, until all are done or one has failed."""
    waiting, done = list(steps), set[str]()
    overall = bars.add_task("all steps", total=len(steps))
    while waiting or running:
        for step in [s for s in waiting if done.issuperset(s.after)]:
            full = len(running) >= jobs or any(r.step.alone for r in running.values())
            if full or (step.alone and running):
                break
            waiting.remove(step)
            log = logs / f"{step.name.replace(' ', '-')}.log"
            bar = bars.add_task(step.name, total=step.total)
            running[pool.submit(_in_worker, step.call, log)] = _Running(step, log, bar)
        ended, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
        for now in running.values():
            if now.step.rows is not None:
                bars.update(now.bar, completed=_count_rows(now.step.rows))
        for future in ended:
            now = running[future]
            problem = future.result()
            if problem is not None:
                raise PipelineError(f"{now.step.name}: {problem} (its output: {now.log})")
            del running[future]
            done.add(now.step.name)
            bars.remove_task(now.bar)
            bars.update(overall, completed=len(done))
            spent = _minutes(time.monotonic() - now.started)
            bars.console.print(f"[{len(done)}/{len(steps)}] {now.step.name}: {spent}", markup=False)


def _count_rows(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:  # the step has not begun yet
        return 0


def _begin_worker(threads: int, parent: int) -> None:
    torch.set_num_threads(threads)

    def watch() -> None:
        """Exit with the parent process, so that no step of a killed run writes where the next one resumes."""
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _in_worker(call: Callable[[], object], log: Path) -> str | None:
    """Run a step with its output in `log`; return the reason if it failed, else None."""
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        call()
    except Exception as error:
        traceback.print_exc()
        return one_line(error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return None


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
