"""Builds the steps of a recipe, one method per stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fcot_vl.bench.measure import Candidate
from fcot_vl.common.config import build
from fcot_vl.merge.config import FINAL_BASE
from fcot_vl.pipeline.calls import run_cache_features, run_label, run_merge
from fcot_vl.pipeline.recipe import BenchSection, EvaluateSection, MergeSection, Recipe, SynthesizeSection
from fcot_vl.pipeline.step import Step
from fcot_vl.prune.method import Method
from fcot_vl.stages.bench import bench
from fcot_vl.stages.evaluate import evaluate
from fcot_vl.stages.synthesize import Split, synthesize


@dataclass(frozen=True)
class Pages:
    """Folder of generated pages, and the step that writes it."""

    folder: Path
    ready: Step
    """Step after which the pages can be used."""
    features: Path | None = None
    """Folder of their cached ViT features."""


class StepBuilder:
    """Builder of the steps of one recipe. Every method adds its step to `steps` and returns it.

    Attributes:
        run: Folder of the run.
        teacher: Folder or hub id of the teacher.
        synthesis: Settings of synthesis.
        merging: Settings of merging.
        steps: Steps added so far.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.run = Path(recipe.output)
        self.teacher = recipe.teacher_model
        self.synthesis = build(SynthesizeSection, recipe.synthesize)
        self.merging = build(MergeSection, recipe.merge)
        self.batch_size = build(EvaluateSection, recipe.evaluate).batch_size
        self.steps: list[Step] = []

    def synthesize(
        self,
        name: str,
        folder: Path,
        *,
        split: Split,
        pages: int,
        seed: int,
        tasks: list[str] | None = None,
    ) -> Pages:
        """Generate `pages` MiniDoc pages of `split`; return them instead of the step."""
        call = partial(
            synthesize,
            folder,
            split=split,
            records=pages,
            seed=seed,
            tasks=tasks,
            shard_size=self.synthesis.shard_size,
        )
        return Pages(folder=folder, ready=self._add(f"synthesize {name}", call))

    def label(self, name: str, pages: Pages, folder: Path, *, seed: int) -> Pages:
        """Replace the answers on `pages` by the teacher's; return the labelled pages instead of the step."""
        call = partial(
            run_label,
            teacher=self.teacher,
            pages=pages.folder,
            output=folder,
            batch_size=self.batch_size,
            seed=seed,
        )
        return Pages(folder=folder, ready=self._add(f"label {name}", call, after=[pages.ready]))

    def cache_features(self, name: str, pages: Pages) -> Pages:
        """Cache the ViT features of `pages`; return the pages with them instead of the step."""
        features = self.run / "features" / pages.folder.name
        call = partial(run_cache_features, teacher=self.teacher, pages=pages.folder, folder=features)
        step = self._add(f"features {name}", call, after=[pages.ready])
        return Pages(folder=pages.folder, ready=step, features=features)

    def train(
        self,
        name: str,
        call: Callable[..., Path],
        section: dict[str, Any],
        *,
        model: str | Path,
        pages: Pages,
        output: Path,
        seed: int,
        after: Sequence[Step] = (),
    ) -> Step:
        """Train `model` with one of the training stages.

        Args:
            name: Name of the step.
            call: `run_realign` or `run_post_train`.
            section: Settings of the stage.
            model: Teacher or student.
            pages: Training pages; their cached features are used if they have any.
            output: Output folder.
            seed: Seed of the training.
            after: Further steps to wait for.
        """
        if pages.features is not None:
            section = section | {"features_folder": str(pages.features)}
        return self._add(
            name,
            partial(call, section=section, model=model, pages=pages.folder, output=output, seed=seed),
            after=[pages.ready, *after],
            rows=output / "losses.jsonl",
            total=section.get("max_steps"),
        )

    def evaluate(
        self,
        name: str,
        model: str | Path,
        *,
        test: Pages,
        stage: str,
        seed: int,
        method: Method | None = None,
        after: Sequence[Step] = (),
    ) -> Step:
        """Score `model` on the test pages, with or without a training-free baseline."""
        output = self.run / "evaluate" / name
        call = partial(
            evaluate,
            model,
            test.folder,
            output,
            stage=stage,
            method=method,
            seed=seed,
            batch_size=self.batch_size,
        )
        return self._add(
            f"evaluate {name}",
            call,
            after=[test.ready, *after],
            rows=output / "predictions.jsonl",
            total=self.synthesis.test,
        )

    def merge(
        self,
        name: str,
        *,
        method: str,
        base: Path,
        trained: Path,
        validation: Pages,
        output: Path,
        after: Step,
    ) -> Step:
        """Merge the checkpoints that a post-training kept.

        Args:
            name: Name of the step.
            method: Method of merging.
            base: Model that the post-training started from, for methods whose base is not the final checkpoint.
            trained: Folder of the post-training.
            validation: Pages on which coalitions of checkpoints are scored.
            output: Output folder.
            after: Step of the post-training.
        """
        config = {
            "base": None if method in ("average", *FINAL_BASE) else base,
            "data": validation.folder if method == "shapley" else None,
            "batch_size": self.batch_size,
        }
        call = partial(
            run_merge,
            trained=trained,
            kept=int(self.recipe.post_train.get("keep_checkpoints", 0)),
            count=self.merging.checkpoints,
            output=output,
            method=method,
            config=config,
        )
        return self._add(name, call, after=[after, validation.ready])

    def bench(self, candidates: Sequence[Candidate], *, test: Pages, after: Sequence[Step]) -> Step:
        """Time `candidates` on the test pages, while no other step runs."""
        settings = asdict(build(BenchSection, self.recipe.bench))
        call = partial(bench, candidates, test.folder, self.run / "bench", **settings)
        return self._add("bench", call, after=[test.ready, *after], alone=True)

    def _add(
        self,
        name: str,
        call: Callable[[], object],
        *,
        after: Sequence[Step] = (),
        rows: Path | None = None,
        total: int | None = None,
        alone: bool = False,
    ) -> Step:
        step = Step(name=name, call=call, after=tuple(after), rows=rows, total=total, alone=alone)
        self.steps.append(step)
        return step
