"""Steps of a recipe with their dependencies, names and output folders."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

from fcot_vl.bench.measure import Candidate
from fcot_vl.common.config import build
from fcot_vl.pipeline.baselines import list_baselines
from fcot_vl.pipeline.builder import Pages, StepBuilder
from fcot_vl.pipeline.calls import run_post_train, run_realign
from fcot_vl.pipeline.recipe import Recipe
from fcot_vl.pipeline.step import Step
from fcot_vl.stages.realign import RealignConfig
from fcot_vl.stages.synthesize import OCR_TASKS


def plan(recipe: Recipe) -> list[Step]:
    """Return the steps of a recipe.

    Every step comes after those it depends on, and the long training chains come before the baselines.
    """
    steps = StepBuilder(recipe)
    data, first_seed = steps.synthesis, recipe.seeds[0]
    test = steps.synthesize(
        "test",
        steps.run / "data" / "test",
        split="test",
        pages=data.test,
        seed=data.seed if data.test_seed is None else data.test_seed,
    )
    validation = None
    if steps.merging.methods:
        validation = steps.synthesize(
            "validation",
            steps.run / "data" / "validation",
            split="validation",
            pages=steps.merging.validation,
            seed=data.seed,
        )
    pages = {seed: _training_pages(steps, seed) for seed in recipe.training_seeds}
    steps.evaluate("teacher", steps.teacher, test=test, stage="teacher", seed=first_seed)
    timed: list[_Student] = []
    for seed, compressor in product(recipe.seeds, recipe.compressors or [""]):
        students = _students(
            steps, seed=seed, compressor=compressor, pages=pages[seed], test=test, validation=validation
        )
        if seed == first_seed:
            timed += students
    for seed in recipe.control_seeds:
        _control(steps, seed=seed, pages=pages[seed].stage_2, test=test)
    baselines, _ = list_baselines(recipe)
    for one in baselines:
        steps.evaluate(one.name, steps.teacher, test=test, stage="teacher", method=one.method, seed=one.seed)
    candidates = [
        Candidate(name="teacher", model=steps.teacher),
        *(Candidate(name=student.name, model=str(student.folder)) for student in timed),
        *(
            Candidate(name=str(one.method), model=steps.teacher, method=one.method)
            for one in baselines
            if one.seed == first_seed
        ),
    ]
    steps.bench(candidates, test=test, after=[student.trained for student in timed])
    return steps.steps


@dataclass(frozen=True)
class _TrainingPages:
    """Training pages of one seed for both stages."""

    stage_1: Pages
    stage_2: Pages


@dataclass(frozen=True)
class _Student:
    """A post-trained student, and the step that trains it."""

    name: str
    folder: Path
    trained: Step


def _training_pages(steps: StepBuilder, seed: int) -> _TrainingPages:
    """Add the steps that make the training pages of a seed, with cached features where a stage asks for them.

    Without pages of its own, stage 1 uses those of stage 2.
    """
    data, folder, drawn = steps.synthesis, steps.run / "data", steps.synthesis.seed + seed
    cache_1, cache_2 = (
        bool(section.get("cache_features")) for section in (steps.recipe.realign, steps.recipe.post_train)
    )
    name = f"train seed {seed}"
    train = steps.synthesize(name, folder / f"train-seed-{seed}", split="train", pages=data.train, seed=drawn)
    if cache_2 or (cache_1 and not data.realign):
        train = steps.cache_features(name, train)
    if not data.realign:
        return _TrainingPages(stage_1=train, stage_2=train)
    name = f"realign seed {seed}"
    printed = steps.synthesize(
        name,
        folder / f"realign-seed-{seed}-unlabelled",
        split="train",
        pages=data.realign,
        seed=drawn,
        tasks=list(OCR_TASKS),
    )
    labelled = steps.label(name, printed, folder / f"realign-seed-{seed}", seed=seed)
    if cache_1:
        labelled = steps.cache_features(name, labelled)
    return _TrainingPages(stage_1=labelled, stage_2=train)


def _students(
    steps: StepBuilder,
    *,
    seed: int,
    compressor: str,
    pages: _TrainingPages,
    test: Pages,
    validation: Pages | None,
) -> list[_Student]:
    """Add the students of one seed and compressor: both stages, merges and evaluations at every ratio.

    Args:
        steps: Builder that gets the steps.
        seed: Seed of the training.
        compressor: Name of the compressor; "" for that of the recipe's section `realign`.
        pages: Training pages.
        test: Pages of the evaluations.
        validation: Pages for scoring merges, if there are any.
    """
    recipe = steps.recipe
    folder = steps.run / f"seed-{seed}" / compressor
    tag = f"{compressor} " if compressor else ""
    aligned = steps.train(
        f"realign {tag}seed {seed}",
        run_realign,
        recipe.realign | ({"compressor": compressor} if compressor else {}),
        model=steps.teacher,
        pages=pages.stage_1,
        output=folder / "realign",
        seed=seed,
    )
    students = []
    for ratio in build(RealignConfig, recipe.realign, output_dir="unused").ratios:
        student, output = folder / "realign" / f"ratio-{ratio}", folder / f"post-train-{ratio}"
        kind = f"{ratio}-{compressor}" if compressor else str(ratio)
        end = f"{kind}-seed-{seed}"
        steps.evaluate(f"realign-{end}", student, test=test, stage="realign", seed=seed, after=[aligned])
        trained = steps.train(
            f"post-train {tag}{ratio}x seed {seed}",
            run_post_train,
            recipe.post_train,
            model=student,
            pages=pages.stage_2,
            output=output,
            seed=seed,
            after=[aligned],
        )
        steps.evaluate(f"post-train-{end}", output, test=test, stage="post-train", seed=seed, after=[trained])
        if validation is not None:
            for method in steps.merging.methods:
                name, merged = f"merge-{kind}-{method}-seed-{seed}", folder / f"merge-{ratio}-{method}"
                step = steps.merge(
                    name,
                    method=method,
                    base=student,
                    trained=output,
                    validation=validation,
                    output=merged,
                    after=trained,
                )
                steps.evaluate(name, merged, test=test, stage="post-train", seed=seed, after=[step])
        name = f"student {ratio}x {compressor}".rstrip()
        students.append(_Student(name=name, folder=output, trained=trained))
    return students


def _control(steps: StepBuilder, *, seed: int, pages: Pages, test: Pages) -> None:
    """Add the control: the teacher post-trained on the same pages without compression, and its evaluation."""
    output = steps.run / f"seed-{seed}" / "control"
    trained = steps.train(
        f"control seed {seed}",
        run_post_train,
        steps.recipe.post_train,
        model=steps.teacher,
        pages=pages,
        output=output,
        seed=seed,
    )
    steps.evaluate(f"control-seed-{seed}", output, test=test, stage="control", seed=seed, after=[trained])
