"""Commands that train and merge: realign, post-train, resample, curves, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fcot_vl.cli.options import Data, FromRecipe, Output, Teacher, TrainingData, or_embedded_teacher
from fcot_vl.cli.settings import MORE_FLAGS, SettingsCommand, read_settings

app = typer.Typer()


class RealignCommand(SettingsCommand):
    """`realign`, whose further flags are the fields of `RealignConfig`."""

    section = "realign"

    def config(self) -> type[Any]:
        from fcot_vl.stages.realign import RealignConfig

        return RealignConfig


class PostTrainCommand(SettingsCommand):
    """`post-train`, whose further flags are the fields of `PostTrainConfig`."""

    section = "post_train"

    def config(self) -> type[Any]:
        from fcot_vl.stages.post_train import PostTrainConfig

        return PostTrainConfig


@app.command(cls=RealignCommand, context_settings=MORE_FLAGS)
def realign(
    context: typer.Context,
    data: TrainingData,
    output: Output,
    teacher: Teacher = None,
    recipe: FromRecipe = None,
) -> None:
    """Stage 1: train the compressor and the projector of one or more students; all other weights stay frozen."""
    from fcot_vl.stages.realign import RealignConfig
    from fcot_vl.stages.realign import realign as run

    run(
        read_settings(RealignConfig, RealignCommand.section, recipe, context.args, output),
        or_embedded_teacher(teacher),
        data,
    )


@app.command(cls=PostTrainCommand, context_settings=MORE_FLAGS)
def post_train(
    context: typer.Context,
    model: Annotated[Path, typer.Option(help="Student folder. A teacher folder is trained as the control.")],
    data: TrainingData,
    output: Output,
    recipe: FromRecipe = None,
) -> None:
    """Stage 2: train all weights of a student on the answers."""
    from fcot_vl.stages.post_train import PostTrainConfig
    from fcot_vl.stages.post_train import post_train as run

    run(read_settings(PostTrainConfig, PostTrainCommand.section, recipe, context.args, output), model, data)


@app.command(context_settings=MORE_FLAGS)
def resample(
    context: typer.Context,
    data: TrainingData,
    output: Output,
    losses: Annotated[
        Path | None, typer.Option(help="Output folder of a finished coarse post-train run on this data.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Student folder to start a coarse run from, instead of --losses.")
    ] = None,
    records: Annotated[int, typer.Option(min=1, help="Number of samples in the coarse run.")] = 512,
    floor: Annotated[float, typer.Option(help="Minimum sampling weight.")] = 0.25,
    cap: Annotated[float, typer.Option(help="Maximum sampling weight.")] = 4.0,
    generation: Annotated[
        list[str] | None,
        typer.Option(
            help="Group whose weight is never raised, such as a generation task. Repeat for several."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of samples for the coarse run.")] = 0,
    recipe: FromRecipe = None,
) -> None:
    """Weight the groups of the data by the losses of a coarse run, and write them as a mixture.

    With `--model`, the settings listed by `fcot-vl post-train --help` are flags of the coarse run.
    """
    from fcot_vl.stages.post_train import PostTrainConfig
    from fcot_vl.stages.resample import ResampleConfig
    from fcot_vl.stages.resample import resample as run

    config = ResampleConfig(
        output=output,
        data=data,
        losses=losses,
        model=model,
        records=records,
        floor=floor,
        cap=cap,
        generation=tuple(generation or ()),
        seed=seed,
    )
    if model is None:
        if context.args or recipe:
            raise ValueError(f"{(context.args or ['--recipe'])[0]}: settings of a coarse run go with --model")
        run(config)
        return
    flags = [*context.args, "--seed", str(seed)]
    run(config, read_settings(PostTrainConfig, PostTrainCommand.section, recipe, flags, output / "coarse"))


@app.command()
def curves(
    run: Annotated[Path, typer.Argument(help="Folder of a post-train run made with --keep-checkpoints.")],
    data: Data,
    output: Output,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of questions decoded together.")] = 64,
) -> None:
    """Plot losses and scores by task over a post-training run, from its kept checkpoints."""
    from fcot_vl.stages.curves import curves as make

    make(run, data, output, batch_size)


@app.command()
def merge(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(help="Two or more model folders of one architecture, with safetensors weights."),
    ],
    output: Output,
    base: Annotated[
        Path | None,
        typer.Option(
            help="Base model of the merge. Default: the last checkpoint (task-arithmetic, shapley). Required by ties "
            "and dare; not used by average and weighted."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Merge method: average, weighted, task-arithmetic, shapley, ties or dare.")
    ] = "average",
    weights: Annotated[
        str | None,
        typer.Option(help="One weight per checkpoint, such as 0.5,0.3,0.2. shapley computes its own."),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            help="Factor on the sum added to the base. Default: 0.5 for task-arithmetic and dare, 1 for ties."
        ),
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(
            help="Share of each difference's values that is kept. Default: 0.2 for ties, 0.1 for dare."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Validation data that shapley scores coalitions on, as for `evaluate`."),
    ] = None,
    score_command: Annotated[
        str | None,
        typer.Option(
            help="Command that scores a coalition for shapley instead of --data. It contains {model}; "
            "its last output line is the score."
        ),
    ] = None,
    permutations: Annotated[
        int | None,
        typer.Option(
            help="Number of sampled orders for shapley. Required above 8 checkpoints. Default: exact values."
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Number of questions decoded together, with --data.")
    ] = 64,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Data type of the merged weights: float32, bfloat16 or float16. Default: that of the base."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the sampled orders and of the values that dare drops.")
    ] = 0,
) -> None:
    """Merge checkpoints of one architecture: average, weighted, task arithmetic, Shapley values, TIES or DARE."""
    from transformers.utils.logging import disable_progress_bar

    from fcot_vl.merge.config import MergeConfig
    from fcot_vl.stages.merge import merge as run

    disable_progress_bar()
    run(
        MergeConfig(
            checkpoints=checkpoints,
            output=output,
            base=base,
            method=method,
            weights=None if weights is None else _numbers("--weights", weights),
            scale=scale,
            density=density,
            data=data,
            score_command=score_command,
            permutations=permutations,
            batch_size=batch_size,
            dtype=dtype,
            seed=seed,
        )
    )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise ValueError(
            f"{option} {text}: expected numbers separated by commas, such as 0.5,0.3,0.2"
        ) from None
