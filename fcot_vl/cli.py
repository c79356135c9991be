"""The command line: one verb per stage, `ask`, and the two recipes. Nothing is done here, only passed on.

Training verbs take every field of their dataclass as a flag (`--learning-rate 1e-3`), and the recipe section of the
same name as the starting point (`--recipe demo`). What a person got wrong is one red line and exit code 2.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

app = typer.Typer(
    name="fcot-vl",
    help="Compress the visual tokens of document-reading models, and measure what it costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
MORE_FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True}

Output = Annotated[Path, typer.Option(help="Folder to write; the same command again resumes it.")]
Data = Annotated[Path, typer.Option(help="Folder that `synthesize` wrote.")]
TrainingData = Annotated[
    Path, typer.Option(help="Folder of shards, InternVL meta JSON, LLaVA JSON or mixture YAML.")
]
FromRecipe = Annotated[
    str | None, typer.Option("--recipe", help="Recipe whose section gives the starting values.")
]
RunOutput = Annotated[Path | None, typer.Option(help="Folder of the run; by default the recipe's.")]
RunRecipe = Annotated[str, typer.Option("--recipe", help="A recipe's name or file.")]
Teacher = Annotated[str | None, typer.Option(help="Folder or hub id; default: the embedded one.")]
Endpoint = Annotated[
    str | None, typer.Option(help="OpenAI-compatible server, such as http://127.0.0.1:8000/v1.")
]
EndpointModel = Annotated[str | None, typer.Option("--model", help="Name of the model at the endpoint.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Most answers decoded together.")]
Requests = Annotated[int, typer.Option(min=1, help="Most requests in flight at the endpoint.")]
Timeout = Annotated[
    float, typer.Option(help="Seconds without a byte after which a request is sent to the endpoint again.")
]
PriceIn = Annotated[float | None, typer.Option(help="Price of a million tokens asked, for the cost.")]
PriceOut = Annotated[float | None, typer.Option(help="Price of a million tokens answered.")]
MaxSkipped = Annotated[
    float,
    typer.Option(min=0, max=1, help="Share of skipped or unanswered records above which the run stops."),
]
Records = Annotated[str, typer.Option(help="Shards, meta JSON, LLaVA JSON or mixture YAML.")]
Prompts = Annotated[Path | None, typer.Option(help="YAML of templates by task; goes before the package's.")]
StyleFile = Annotated[
    Path | None,
    typer.Option("--style", help="JSON lines with the teacher's answers, such as `label` writes."),
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Steps side by side; by default the recipe's.")]


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Folder of an InternVL checkpoint in the original layout.")],
    output: Annotated[Path, typer.Argument(help="Folder to write; the same command again resumes it.")],
    allow_bin: Annotated[
        bool, typer.Option("--allow-bin", help="Read .bin weights: pickle, opened with weights_only.")
    ] = False,
    image_token_id: Annotated[
        int | None, typer.Option(help="Id of <IMG_CONTEXT>, where the tokenizer files are missing.")
    ] = None,
) -> None:
    """Write an original OpenGVLab checkpoint in the Hugging Face layout, tensor for tensor."""
    from fcot_vl.convert.write import convert as run

    run(source, output, allow_bin=allow_bin, image_token=image_token_id)


@app.command()
def inspect(
    path: Annotated[
        str, typer.Argument(help="Checkpoint folder (original or Hugging Face layout) or student.")
    ],
    page: Annotated[str, typer.Option(help="Page that is counted, WIDTHxHEIGHT in pixels.")] = "1240x1754",
    context: Annotated[int, typer.Option(min=1, help="Tokens of a training sequence.")] = 4096,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that training is sharded over.")] = 1,
    compressor: Annotated[
        str,
        typer.Option(
            help="Of the students: conv, pooling, qformer, conv2d, c_abstractor, ldpv2 or token_packer."
        ),
    ] = "conv",
) -> None:
    """What a checkpoint is, and what it costs at every ratio, without reading a weight."""
    from fcot_vl.inspect import inspect as run
    from fcot_vl.inspect import page_size

    run(path, page_size(page), context, gpus, compressor)


@app.command()
def synthesize(
    output: Output,
    split: Annotated[
        str, typer.Option(help="MiniDoc: train, validation or test; no content is shared.")
    ] = "train",
    records: Annotated[int, typer.Option(help="Pages.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the content.")] = 0,
    task: Annotated[
        list[str] | None, typer.Option(help="MiniDoc: only this task; repeat for several.")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="OCR-like pages of this kind instead of MiniDoc; repeat for several."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="OCR-like: processes.")] = 1,
    corpus: Annotated[
        Path | None, typer.Option(help="OCR-like: folder of *.txt and *.md files to print from.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="OCR-like: folder of *.html files for the kinds web and web_zh.")
    ] = None,
    internvl: Annotated[
        bool, typer.Option("--internvl", help="OCR-like: also write InternVL's JSONL, images and meta file.")
    ] = False,
) -> None:
    """Write pages with questions as Parquet shards: MiniDoc, or with `--kind` OCR-like pages.

    Kinds, each also in Chinese with `_zh` behind its name: text, layout, table, chart, handwriting, scene, web.
    """
    if kind:
        from fcot_vl.data.synthesize.ocr import Sources
        from fcot_vl.data.synthesize.ocr.write import synthesize_ocr

        if task:
            raise ValueError("--task is of MiniDoc and --kind of the OCR-like pages: give one of them")
        synthesize_ocr(output, kind, records, seed, workers, Sources(corpus, html), internvl)
        return
    if workers > 1 or corpus or html or internvl:
        raise ValueError("--workers, --corpus, --html and --internvl are of the OCR-like pages: add --kind")
    from fcot_vl.data.synthesize.write import synthesize as write

    write(output, split, records, seed, task)  # type: ignore[arg-type]


@app.command()
def label(
    output: Output,
    data: Annotated[
        str | None, typer.Option(help="Shards, meta JSON, LLaVA JSON or mixture YAML to label.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of pictures to label, with those below.")
    ] = None,
    teacher: Teacher = None,
    endpoint: Endpoint = None,
    model: EndpointModel = None,
    question: Annotated[
        list[str] | None, typer.Option(help="Asked in place of the records' own; repeat for several.")
    ] = None,
    keep_truth: Annotated[
        bool, typer.Option("--keep-truth", help="A record's own answer stays its label.")
    ] = False,
    max_new_tokens: MaxNewTokens = 1024,
    batch_size: BatchSize = 16,
    requests: Requests = 8,
    timeout: Timeout = 600.0,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    max_skipped: MaxSkipped = 0.1,
    seed: Annotated[int, typer.Option(help="Draws the questions.")] = 0,
) -> None:
    """Let a teacher answer over pictures, and write the answers as records to train on."""
    from transformers.utils.logging import disable_progress_bar

    from fcot_vl.instruct.label import LabelConfig
    from fcot_vl.instruct.label import label as run

    disable_progress_bar()
    run(
        LabelConfig(
            output,
            data,
            images,
            teacher,
            tuple(question or ()),
            keep_truth,
            endpoint=endpoint,
            model=model,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            requests=requests,
            timeout=timeout,
            price_in=price_in,
            price_out=price_out,
            max_skipped=max_skipped,
            seed=seed,
        )
    )


@app.command()
def rewrite(
    output: Output,
    data: Records,
    writer: Annotated[
        str | None, typer.Option(help="Folder or hub id of a language model with a chat template.")
    ] = None,
    endpoint: Endpoint = None,
    model: EndpointModel = None,
    style: StyleFile = None,
    prompts: Prompts = None,
    max_new_tokens: MaxNewTokens = 1024,
    batch_size: BatchSize = 16,
    requests: Requests = 8,
    timeout: Timeout = 600.0,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    max_skipped: MaxSkipped = 0.1,
    seed: Annotated[int, typer.Option(help="Draws the examples of the tone.")] = 0,
) -> None:
    """Let a language model put answers into the teacher's tone; an answer whose facts do not survive stays."""
    from transformers.utils.logging import disable_progress_bar

    from fcot_vl.instruct.rewrite import RewriteConfig
    from fcot_vl.instruct.rewrite import rewrite as run

    disable_progress_bar()
    run(
        RewriteConfig(
            output,
            data,
            writer,
            style,
            prompts,
            endpoint=endpoint,
            model=model,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            requests=requests,
            timeout=timeout,
            price_in=price_in,
            price_out=price_out,
            max_skipped=max_skipped,
            seed=seed,
        )
    )


@app.command()
def cot(
    output: Output,
    data: Records,
    teacher: Teacher = None,
    endpoint: Endpoint = None,
    model: EndpointModel = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers drawn for each question.")] = 8,
    temperature: Annotated[float, typer.Option(min=0, help="Of the draws.")] = 0.8,
    keep: Annotated[int, typer.Option(min=1, help="Most answers kept for a question.")] = 2,
    select: Annotated[str, typer.Option(help="Which are kept: shortest, or diverse.")] = "shortest",
    vanilla_ratio: Annotated[
        float | None,
        typer.Option(help="Share of vanilla records in the mixture; default: each of them as in the data."),
    ] = None,
    prompts: Prompts = None,
    style: StyleFile = None,
    max_new_tokens: MaxNewTokens = 1024,
    batch_size: BatchSize = 16,
    requests: Requests = 8,
    timeout: Timeout = 600.0,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    max_skipped: MaxSkipped = 0.1,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Draw worked answers from a teacher, keep those whose result is right, and mix them with the data."""
    from transformers.utils.logging import disable_progress_bar

    from fcot_vl.instruct.cot import CotConfig
    from fcot_vl.instruct.cot import cot as run

    disable_progress_bar()
    run(
        CotConfig(
            output,
            data,
            teacher,
            samples,
            temperature,
            keep,
            select,  # type: ignore[arg-type]
            vanilla_ratio,
            prompts,
            style,
            endpoint=endpoint,
            model=model,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            requests=requests,
            timeout=timeout,
            price_in=price_in,
            price_out=price_out,
            max_skipped=max_skipped,
            seed=seed,
        )
    )


@app.command(context_settings=MORE_FLAGS)
def realign(
    context: typer.Context,
    data: TrainingData,
    output: Output,
    teacher: Teacher = None,
    recipe: FromRecipe = None,
) -> None:
    """Stage 1: train compressor and adaptor of one or more students; everything else stays frozen.

    Further flags: the fields of `RealignConfig`, such as `--ratios 2,4 --max-steps 500 --seed 1`.
    """
    from fcot_vl.train.realign import RealignConfig
    from fcot_vl.train.realign import realign as run

    run(_config(RealignConfig, "realign", recipe, context.args, output), _teacher(teacher), data)


@app.command(context_settings=MORE_FLAGS)
def post_train(
    context: typer.Context,
    model: Annotated[Path, typer.Option(help="Student folder; a teacher is trained as the control.")],
    data: TrainingData,
    output: Output,
    recipe: FromRecipe = None,
) -> None:
    """Stage 2: train all weights on the answers.

    Further flags: the fields of `PostTrainConfig`, such as `--max-steps 500 --learning-rate 1e-3`.
    """
    from fcot_vl.train.post_train import PostTrainConfig
    from fcot_vl.train.post_train import post_train as run

    run(_config(PostTrainConfig, "post_train", recipe, context.args, output), model, data)


@app.command(context_settings=MORE_FLAGS)
def resample(
    context: typer.Context,
    data: TrainingData,
    output: Output,
    losses: Annotated[
        Path | None, typer.Option(help="Output folder of a coarse post-train run on this data.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Student to make the coarse run with, instead.")] = None,
    records: Annotated[int, typer.Option(min=1, help="Records of the coarse run.")] = 512,
    floor: Annotated[float, typer.Option(help="Least weight.")] = 0.25,
    cap: Annotated[float, typer.Option(help="Greatest weight.")] = 4.0,
    generation: Annotated[
        list[str] | None, typer.Option(help="Group that is never weighed up; repeat for several.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the records of the coarse run.")] = 0,
    recipe: FromRecipe = None,
) -> None:
    """Weigh the groups of the data by the losses of a coarse run, and write them as a mixture.

    Further flags, with `--model`: the fields of `PostTrainConfig`, for the coarse run.
    """
    from fcot_vl.train.post_train import PostTrainConfig
    from fcot_vl.train.resample import ResampleConfig
    from fcot_vl.train.resample import resample as run

    config = ResampleConfig(output, data, losses, model, records, floor, cap, tuple(generation or ()), seed)
    if model is None:
        if context.args or recipe:
            raise ValueError(f"{(context.args or ['--recipe'])[0]}: settings of a coarse run go with --model")
        run(config)
        return
    flags = [*context.args, "--seed", str(seed)]
    run(config, _config(PostTrainConfig, "post_train", recipe, flags, output / "coarse"))


@app.command()
def curves(
    run: Annotated[Path, typer.Argument(help="Folder of a post-train run with --keep-checkpoints.")],
    data: Data,
    output: Output,
    batch_size: Annotated[int, typer.Option(min=1, help="Most questions decoded together.")] = 64,
) -> None:
    """Losses and scores by task along a post-training, from the checkpoints it kept."""
    from fcot_vl.curves import curves as make

    make(run, data, output, batch_size)


@app.command()
def merge(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Two or more model folders of one architecture, in safetensors.")
    ],
    output: Output,
    base: Annotated[
        Path | None, typer.Option(help="The model they were trained from; not for average and weighted.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="average, weighted, task-arithmetic, shapley, ties or dare.")
    ] = "average",
    weights: Annotated[
        str | None, typer.Option(help="One a checkpoint, such as 0.5,0.3,0.2; shapley finds its own.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Of what is added to the base: task-arithmetic, dare 0.5, ties 1.")
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="Share of a difference's values kept: ties 0.2, dare 0.1.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="shapley: validation records to score by, as for `evaluate`.")
    ] = None,
    score_command: Annotated[
        str | None,
        typer.Option(help="shapley: a command with {model} in it, whose last line is the score, instead."),
    ] = None,
    permutations: Annotated[
        int | None, typer.Option(help="shapley: orders drawn; needed above 8 checkpoints, else exact.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="With --data: most questions decoded together.")
    ] = 64,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; by default as in the base.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the orders, and of what dare drops.")] = 0,
) -> None:
    """Merge checkpoints of one architecture, of any model: by average, weights, or what each is worth."""
    from transformers.utils.logging import disable_progress_bar

    from fcot_vl.merge.config import MergeConfig
    from fcot_vl.merge_stage import merge as run

    disable_progress_bar()
    run(
        MergeConfig(
            checkpoints,
            output,
            base,
            method,
            None if weights is None else _numbers("--weights", weights),
            scale,
            density,
            data,
            score_command,
            permutations,
            batch_size,
            dtype,
            seed,
        )
    )


@app.command()
def evaluate(
    output: Output,
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder of records; of a benchmark a local copy or a dataset on the hub, by default its own."
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(help="docvqa, infovqa, chartqa, textvqa, ocrbench, ai2d, scienceqa or mme."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Of a benchmark, by default the one that is reported; of records only noted (test)."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many questions from the start.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Teacher or student folder; default: the embedded one.")
    ] = None,
    stage: Annotated[
        str, typer.Option(help="What it is: teacher, realign, post-train or control.")
    ] = "teacher",
    method: Annotated[
        str,
        typer.Option(
            help="none, fastv, pyramiddrop, sparsevlm, visionzip, vispruner, prumerge, divprune, tome, random, "
            "uniform, smaller_page or fewer_tiles."
        ),
    ] = "none",
    keep: Annotated[float | None, typer.Option(help="Share of visual tokens the method keeps.")] = None,
    layer: Annotated[int | None, typer.Option(help="FastV's K.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the model's training; and of random dropping.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Most questions decoded together.")] = 64,
    max_skipped: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of a benchmark's questions that may be broken before it stops."
        ),
    ] = 0.01,
) -> None:
    """Score a model, with or without a training-free peer, on records or on a benchmark by name."""
    from fcot_vl.evaluate.runner import evaluate as run
    from fcot_vl.prune.method import Method

    peer = Method(method, keep, layer, seed if method == "random" else 0)
    run(
        _teacher(model),
        data,
        output,
        stage=stage,
        method=peer,
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
            help="For tasks of DocVQA's shape: shards, meta JSON, LLaVA JSON or mixture YAML; else a saved DatasetDict."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write, for lmms-eval's --include_path.")],
    task: Annotated[str, typer.Option(help="lmms-eval's task.")] = "docvqa_val",
    name: Annotated[
        str | None, typer.Option(help="Of the new task; default: the task's with _local behind it.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of a DatasetDict that has several.")] = None,
    bare: Annotated[
        bool, typer.Option("--bare", help="Ask the questions alone, without the task's words around them.")
    ] = False,
) -> None:
    """Give a task of lmms-eval local data: a dataset, if records are given, and the task file. See `make eval-env`."""
    from fcot_vl.evaluate.lmms_task import LmmsTaskConfig, lmms_task

    lmms_task(LmmsTaskConfig(data, output, task, name, split, bare))


@app.command()
def bench(
    data: Annotated[
        list[str],
        typer.Option(
            help="Folder that `synthesize` wrote, or NAME=FOLDER. Repeat to set image sets side by side."
        ),
    ],
    output: Output,
    contender: Annotated[
        list[str],
        typer.Option(
            help="NAME=FOLDER or NAME=FOLDER@METHOD,KEEP[,LAYER]; no FOLDER is the embedded teacher. Repeat; speed-ups "
            "are over the first."
        ),
    ],
    pages: Annotated[int, typer.Option(min=1, help="Pages used of each image set.")] = 8,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens decoded per page.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Times every page is measured.")] = 5,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Also answer that many pages together, for throughput.")
    ] = None,
) -> None:
    """Time models and peers on the same pages, in turn: prefill, decode, end to end, cache, arithmetic."""
    from fcot_vl.bench import bench as run

    run(
        [_contender(text) for text in contender],
        _image_sets(data),
        output,
        pages=pages,
        new_tokens=new_tokens,
        rounds=rounds,
        batch_size=batch_size,
    )


@app.command()
def export(
    student: Annotated[Path, typer.Argument(help="Folder that `realign` or `post-train` wrote.")],
    output: Annotated[Path, typer.Argument(help="Folder to write.")],
    remote_code: Annotated[
        bool, typer.Option("--remote-code", help="Add the code, to load by trust_remote_code elsewhere.")
    ] = False,
    base_model: Annotated[str | None, typer.Option(help="Base model, for the card.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the base, for the card.")] = None,
    result: Annotated[Path | None, typer.Option(help="Evaluation whose scores go into the card.")] = None,
    push: Annotated[str | None, typer.Option(help="Hub repository to upload to; none: nothing is.")] = None,
) -> None:
    """Make a student's folder ready for others: weights, model card, and the code if asked."""
    from fcot_vl.export import export as run

    run(
        student,
        output,
        remote_code=remote_code,
        base_model=base_model,
        licence=licence,
        result=result,
        push=push,
    )


@app.command()
def visualize(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    question: Annotated[str, typer.Argument(help="A question about it.")],
    output: Output,
    model: Annotated[
        list[str] | None,
        typer.Option(help="InternVL teacher or student folder; repeat to set them side by side."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 64,
) -> None:
    """Draw which visual tokens an answer attended to, over the page, models side by side."""
    from fcot_vl.visualize import visualize as run

    run(image, question, output, model or [], max_new_tokens)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run; every result below it is read.")],
    output: Annotated[Path | None, typer.Option(help="Default: `report` in the run folder.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Test pages for the examples; default: `data/test`.")
    ] = None,
) -> None:
    """Make tables, figures and examples from what a run measured."""
    from fcot_vl.evaluate.report import ReportConfig
    from fcot_vl.evaluate.report import report as make

    make(ReportConfig(run, output, data))


@app.command()
def ask(
    image: Annotated[Path, typer.Argument(help="A picture: JPEG, PNG, WebP, TIFF, GIF or BMP.")],
    question: Annotated[str, typer.Argument(help="A question in plain words.")],
    model: Annotated[
        str | None, typer.Option(help="Teacher or student folder; default: the embedded one.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of the answer.")] = 256,
) -> None:
    """Ask your own picture a question."""
    from transformers.utils.logging import disable_progress_bar

    from fcot_vl.ask import ask as run

    disable_progress_bar()
    answer = run(image, question, model, max_new_tokens)
    typer.echo(answer.text)
    for line in (answer.answered_by, answer.notice):
        if line:
            typer.secho(line, fg="bright_black", err=True)


@app.command()
def demo(output: RunOutput = None, jobs: Jobs = None, recipe: RunRecipe = "demo") -> None:
    """The whole path in minutes: two students at ratios 2 and 4, every comparison, one seed, a report."""
    from fcot_vl.pipeline import run_recipe

    run_recipe(recipe, output=output, jobs=jobs)


@app.command()
def reproduce(output: RunOutput = None, jobs: Jobs = None, recipe: RunRecipe = "reproduce") -> None:
    """The whole path in hours: three seeds, all peers and controls, full training, a report."""
    from fcot_vl.pipeline import run_recipe

    run_recipe(recipe, output=output, jobs=jobs)


def _image_sets(given: list[str]) -> str | dict[str, str]:
    """One folder as it is; several by their names, or by those of their folders."""
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


def _contender(text: str) -> Any:
    """`student=out/student-4x`, or `fastv=out/teacher@fastv,0.5,2`."""
    from fcot_vl.bench import Contender
    from fcot_vl.prune.method import Method

    name, given, rest = text.partition("=")
    folder, _, peer = rest.partition("@")
    method, *numbers = peer.split(",") if peer else ["none"]
    try:
        keep = float(numbers[0]) if numbers else None
        layer = int(numbers[1]) if len(numbers) > 1 else None
    except ValueError:
        raise ValueError(
            f"--contender {text}: expected METHOD,KEEP[,LAYER] after @, such as fastv,0.5,2"
        ) from None
    if not given or not name or len(numbers) > 2:
        raise ValueError(f"--contender {text}: expected NAME=FOLDER or NAME=FOLDER@METHOD,KEEP[,LAYER]")
    return Contender(name, _teacher(folder or None), Method(method, keep, layer))


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise ValueError(
            f"{option} {text}: expected numbers with commas between, such as 0.5,0.3,0.2"
        ) from None


def _config(config: Any, section: str, recipe: str | None, flags: list[str], output: Path) -> Any:
    from fcot_vl.recipe import build, read_recipe

    values = read_recipe(recipe).get(section, {}) if recipe else {}
    return build(config, values, flags, output_dir=str(output))


def _teacher(path: str | None) -> str:
    from fcot_vl.model.tiny import tiny_teacher_path

    return path or str(tiny_teacher_path())


def main() -> None:
    """Entry point of the `fcot-vl` command."""
    try:
        app()
    except (Exception, KeyboardInterrupt) as error:
        text = _what_to_do(error)
        if text is None:
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            " ".join(text.split()), style="red", markup=False
        )
        sys.exit(130 if isinstance(error, KeyboardInterrupt) else 2)


def _what_to_do(error: BaseException) -> str | None:
    """What a person is told of an error that a person can mend; None for one that is ours."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command goes on from here"
    if isinstance(error, ValueError | FileNotFoundError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}; free some, and the same command goes on from here"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which may never have been imported
        return (
            "no memory left on the device; fewer records at once, a shorter --max-length or "
            "--activation-checkpointing need less, and the same command goes on from the last checkpoint "
            f"({str(error)[:200]})"
        )
    return None


if __name__ == "__main__":
    main()
