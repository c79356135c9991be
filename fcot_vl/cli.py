"""Command line: one command per stage, `ask`, and the two recipes. It passes settings on and does no work of its own.

Training commands take every field of their dataclass as a flag (`--learning-rate 1e-3`) and the recipe section of the
same name as the starting point (`--recipe demo`). A user's mistake is reported in one red line, with exit code 2.
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
    help="Compress the visual tokens of vision-language models that read documents, and measure the cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
MORE_FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True}

Output = Annotated[Path, typer.Option(help="Output folder. Rerun the same command to resume.")]
Data = Annotated[Path, typer.Option(help="Dataset folder written by `synthesize`.")]
TrainingData = Annotated[
    Path,
    typer.Option(
        help="Training data: folder of Parquet shards, InternVL meta JSON, LLaVA JSON, or mixture YAML."
    ),
]
FromRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="Recipe name or file whose section of this stage gives the default settings."
    ),
]
RunOutput = Annotated[
    Path | None, typer.Option(help="Output folder of the run. Default: the one in the recipe.")
]
RunRecipe = Annotated[str, typer.Option("--recipe", help="Recipe name or file.")]
Teacher = Annotated[
    str | None, typer.Option(help="Teacher: model folder or Hub id. Default: the embedded teacher.")
]
Endpoint = Annotated[
    str | None, typer.Option(help="URL of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1.")
]
EndpointModel = Annotated[str | None, typer.Option("--model", help="Model name at the endpoint.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Maximum number of tokens to generate per answer.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Number of answers decoded together.")]
Requests = Annotated[int, typer.Option(min=1, help="Maximum number of concurrent requests to the endpoint.")]
Timeout = Annotated[
    float, typer.Option(help="Seconds without any received byte after which a request is sent again.")
]
PriceIn = Annotated[
    float | None, typer.Option(help="Price of one million prompt tokens, for the cost report.")
]
PriceOut = Annotated[
    float | None, typer.Option(help="Price of one million generated tokens, for the cost report.")
]
MaxSkipped = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Maximum share of skipped or unanswered samples, 0 to 1; the run stops above it."
    ),
]
Records = Annotated[
    str, typer.Option(help="Data: folder of Parquet shards, InternVL meta JSON, LLaVA JSON, or mixture YAML.")
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help="YAML file with prompt templates by task. They take precedence over the built-in ones."
    ),
]
StyleFile = Annotated[
    Path | None,
    typer.Option("--style", help="JSON Lines file with answers of the teacher, as `label` writes them."),
]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="Number of steps run in parallel. Default: the one in the recipe.")
]


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="Folder of an InternVL checkpoint in the original OpenGVLab layout.")
    ],
    output: Annotated[Path, typer.Argument(help="Output folder. Rerun the same command to resume.")],
    allow_bin: Annotated[
        bool,
        typer.Option(
            "--allow-bin", help="Also read .bin weights (pickle files, opened with weights_only=True)."
        ),
    ] = False,
    image_token_id: Annotated[
        int | None,
        typer.Option(help="Token id of <IMG_CONTEXT>. Needed only when the tokenizer files are missing."),
    ] = None,
) -> None:
    """Convert an original OpenGVLab checkpoint to the Hugging Face layout."""
    from fcot_vl.stages.convert import convert as run

    run(source, output, allow_bin=allow_bin, image_token=image_token_id)


@app.command()
def inspect(
    path: Annotated[
        str, typer.Argument(help="Folder of a checkpoint (original or Hugging Face layout) or of a student.")
    ],
    page: Annotated[str, typer.Option(help="Image size to count for, WIDTHxHEIGHT in pixels.")] = "1240x1754",
    context: Annotated[int, typer.Option(min=1, help="Length of a training sequence in tokens.")] = 4096,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs that training is sharded over.")] = 1,
    compressor: Annotated[
        str,
        typer.Option(
            help="Compressor of the students: conv, pooling, qformer, conv2d, c_abstractor, ldpv2 or token_packer."
        ),
    ] = "conv",
) -> None:
    """Describe a checkpoint and estimate its cost at every compress ratio, from its configuration alone."""
    from fcot_vl.stages.inspect import inspect as run
    from fcot_vl.stages.inspect import page_size

    run(path, page_size(page), context, gpus, compressor)


@app.command()
def synthesize(
    output: Output,
    split: Annotated[
        str, typer.Option(help="MiniDoc split: train, validation or test. Splits share no content.")
    ] = "train",
    records: Annotated[int, typer.Option(help="Number of pages.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the content.")] = 0,
    task: Annotated[
        list[str] | None,
        typer.Option(help="MiniDoc task to generate. Repeat for several. Default: all tasks."),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Kind of OCR-like page to generate instead of MiniDoc. Repeat for several."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes (OCR-like pages).")] = 1,
    corpus: Annotated[
        Path | None, typer.Option(help="Folder of *.txt and *.md files to print (OCR-like pages).")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Folder of *.html files for the kinds web and web_zh.")
    ] = None,
    internvl: Annotated[
        bool,
        typer.Option(
            "--internvl",
            help="Also write the data in InternVL's format: JSONL, images, meta file (OCR-like pages).",
        ),
    ] = False,
) -> None:
    """Generate document pages with questions as Parquet shards: MiniDoc, or OCR-like pages with `--kind`.

    Kinds, each also in Chinese with the suffix `_zh`: text, layout, table, chart, handwriting, scene, web.
    """
    if kind:
        from fcot_vl.synthesize.ocr import Sources
        from fcot_vl.synthesize.ocr.write import synthesize_ocr

        if task:
            raise ValueError("--task is of MiniDoc and --kind of the OCR-like pages: give one of them")
        synthesize_ocr(output, kind, records, seed, workers, Sources(corpus, html), internvl)
        return
    if workers > 1 or corpus or html or internvl:
        raise ValueError("--workers, --corpus, --html and --internvl are of the OCR-like pages: add --kind")
    from fcot_vl.stages.synthesize import synthesize as write

    write(output, split, records, seed, task)  # type: ignore[arg-type]


@app.command()
def label(
    output: Output,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data to label: folder of Parquet shards, InternVL meta JSON, LLaVA JSON, or mixture YAML."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images to label, searched with its subfolders.")
    ] = None,
    teacher: Teacher = None,
    endpoint: Endpoint = None,
    model: EndpointModel = None,
    question: Annotated[
        list[str] | None,
        typer.Option(help="Question to ask instead of each sample's own. Repeat for several."),
    ] = None,
    keep_truth: Annotated[
        bool, typer.Option("--keep-truth", help="Keep a sample's own answer as its label.")
    ] = False,
    max_new_tokens: MaxNewTokens = 1024,
    batch_size: BatchSize = 16,
    requests: Requests = 8,
    timeout: Timeout = 600.0,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    max_skipped: MaxSkipped = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the choice of questions.")] = 0,
) -> None:
    """Label images with the answers of a teacher, as training data."""
    from transformers.utils.logging import disable_progress_bar

    from fcot_vl.stages.label import LabelConfig
    from fcot_vl.stages.label import label as run

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
        str | None, typer.Option(help="Language model that rewrites: folder or Hub id, with a chat template.")
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
    seed: Annotated[int, typer.Option(help="Seed of the choice of style examples.")] = 0,
) -> None:
    """Rewrite answers in the tone of the teacher with a language model.

    An answer whose facts would change is kept as it was.
    """
    from transformers.utils.logging import disable_progress_bar

    from fcot_vl.stages.rewrite import RewriteConfig
    from fcot_vl.stages.rewrite import rewrite as run

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
    samples: Annotated[int, typer.Option(min=1, help="Number of answers sampled per question.")] = 8,
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature.")] = 0.8,
    keep: Annotated[int, typer.Option(min=1, help="Maximum number of answers kept per question.")] = 2,
    select: Annotated[
        str, typer.Option(help="Selection of the answers to keep: shortest or diverse.")
    ] = "shortest",
    vanilla_ratio: Annotated[
        float | None,
        typer.Option(
            help="Share of the original samples in the mixture, 0 to 1. Default: all of them, once."
        ),
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
    seed: Annotated[int, typer.Option(help="Sampling seed.")] = 0,
) -> None:
    """Sample worked answers from a teacher, keep the correct ones, and mix them with the data (rejection sampling)."""
    from transformers.utils.logging import disable_progress_bar

    from fcot_vl.stages.cot import CotConfig
    from fcot_vl.stages.cot import cot as run

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
    """Stage 1: train the compressor and the projector of one or more students; all other weights stay frozen.

    Further flags are the fields of `RealignConfig`, such as `--ratios 2,4 --max-steps 500 --seed 1`.
    """
    from fcot_vl.stages.realign import RealignConfig
    from fcot_vl.stages.realign import realign as run

    run(_config(RealignConfig, "realign", recipe, context.args, output), _teacher(teacher), data)


@app.command(context_settings=MORE_FLAGS)
def post_train(
    context: typer.Context,
    model: Annotated[Path, typer.Option(help="Student folder. A teacher folder is trained as the control.")],
    data: TrainingData,
    output: Output,
    recipe: FromRecipe = None,
) -> None:
    """Stage 2: train all weights of a student on the answers.

    Further flags are the fields of `PostTrainConfig`, such as `--max-steps 500 --learning-rate 1e-3`.
    """
    from fcot_vl.stages.post_train import PostTrainConfig
    from fcot_vl.stages.post_train import post_train as run

    run(_config(PostTrainConfig, "post_train", recipe, context.args, output), model, data)


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

    With `--model`, further flags are the fields of `PostTrainConfig` for the coarse run.
    """
    from fcot_vl.stages.post_train import PostTrainConfig
    from fcot_vl.stages.resample import ResampleConfig
    from fcot_vl.stages.resample import resample as run

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
        Path | None, typer.Option(help="Base model of the merge. Not used by average and weighted.")
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
            help="Dataset folder. With --benchmark: a local copy or a Hub dataset. Default: the benchmark's own "
            "Hub dataset."
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
            help="Maximum share of unusable questions in a benchmark, 0 to 1; the run stops above it.",
        ),
    ] = 0.01,
) -> None:
    """Score a model, with or without a training-free baseline, on a dataset folder or a public benchmark."""
    from fcot_vl.prune.method import Method
    from fcot_vl.stages.evaluate import evaluate as run

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
    output: Output,
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
        print(
            "warning: --contender is now --candidate; the old name will be removed in the next version",
            file=sys.stderr,
        )
    run(
        [_candidate(text) for text in [*(candidate or []), *(contender or [])]],
        _image_sets(data),
        output,
        pages=pages,
        new_tokens=new_tokens,
        rounds=rounds,
        batch_size=batch_size,
    )


@app.command()
def export(
    student: Annotated[Path, typer.Argument(help="Student folder written by `realign` or `post-train`.")],
    output: Annotated[Path, typer.Argument(help="Output folder.")],
    remote_code: Annotated[
        bool,
        typer.Option("--remote-code", help="Add the model code, for loading with trust_remote_code=True."),
    ] = False,
    base_model: Annotated[str | None, typer.Option(help="Base model named in the model card.")] = None,
    license: Annotated[
        str | None, typer.Option(help="License of the base model, named in the model card.")
    ] = None,
    licence: Annotated[str | None, typer.Option(hidden=True)] = None,
    result: Annotated[
        Path | None, typer.Option(help="Evaluation folder whose scores go into the model card.")
    ] = None,
    push: Annotated[str | None, typer.Option(help="Hub repository to upload to. Default: no upload.")] = None,
) -> None:
    """Export a student for distribution: weights, model card and, with --remote-code, the model code."""
    from fcot_vl.stages.export import export as run

    if licence is not None:
        print(
            "warning: --licence is now --license; the old name will be removed in the next version",
            file=sys.stderr,
        )
    run(
        student,
        output,
        remote_code=remote_code,
        base_model=base_model,
        licence=license or licence,
        result=result,
        push=push,
    )


@app.command()
def visualize(
    image: Annotated[Path, typer.Argument(help="Image file.")],
    question: Annotated[str, typer.Argument(help="Question about the image.")],
    output: Output,
    model: Annotated[
        list[str] | None,
        typer.Option(help="InternVL teacher or student folder. Repeat to compare models."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens to generate.")] = 64,
) -> None:
    """Draw the visual tokens that an answer attended to over the image, for one or more models."""
    from fcot_vl.stages.visualize import visualize as run

    run(image, question, output, model or [], max_new_tokens)


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


@app.command()
def ask(
    image: Annotated[Path, typer.Argument(help="Image file: JPEG, PNG, WebP, TIFF, GIF or BMP.")],
    question: Annotated[str, typer.Argument(help="Question about the image.")],
    model: Annotated[
        str | None, typer.Option(help="Teacher or student: folder or Hub id. Default: the embedded teacher.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens to generate.")] = 256,
) -> None:
    """Answer one question about an image of your own."""
    from transformers.utils.logging import disable_progress_bar

    from fcot_vl.stages.ask import ask as run

    disable_progress_bar()
    answer = run(image, question, model, max_new_tokens)
    typer.echo(answer.text)
    for line in (answer.answered_by, answer.notice):
        if line:
            typer.secho(line, fg="bright_black", err=True)


@app.command()
def demo(output: RunOutput = None, jobs: Jobs = None, recipe: RunRecipe = "demo") -> None:
    """Run all stages in minutes: two students (ratios 2 and 4), all comparisons, one seed, a report."""
    from fcot_vl.pipeline import run_recipe

    run_recipe(recipe, output=output, jobs=jobs)


@app.command()
def reproduce(output: RunOutput = None, jobs: Jobs = None, recipe: RunRecipe = "reproduce") -> None:
    """Run all stages in hours: three seeds, all baselines and controls, full training, a report."""
    from fcot_vl.pipeline import run_recipe

    run_recipe(recipe, output=output, jobs=jobs)


def _image_sets(given: list[str]) -> str | dict[str, str]:
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
    return Candidate(name, _teacher(folder or None), Method(method, keep, layer))


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise ValueError(
            f"{option} {text}: expected numbers with commas between, such as 0.5,0.3,0.2"
        ) from None


def _config(config: Any, section: str, recipe: str | None, flags: list[str], output: Path) -> Any:
    from fcot_vl.common.config import build, read_recipe

    values = read_recipe(recipe).get(section, {}) if recipe else {}
    return build(config, values, flags, output_dir=str(output))


def _teacher(path: str | None) -> str:
    from fcot_vl.models.tiny import tiny_teacher_path

    return path or str(tiny_teacher_path())


def main() -> None:
    """Run the `fcot-vl` command."""
    try:
        app()
    except SystemExit as ended:
        if not ended.code:
            leave_process_group()
        raise
    except (Exception, KeyboardInterrupt) as error:
        text = _what_to_do(error)
        if text is None:
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            " ".join(text.split()), style="red", markup=False
        )
        sys.exit(130 if isinstance(error, KeyboardInterrupt) else 2)


def leave_process_group() -> None:
    """Destroy torch's process group, if this process is in one; a process that keeps it may abort while it exits."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _what_to_do(error: BaseException) -> str | None:
    """Return the message for an error that the user can fix; None for a fault of the program."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; rerun the same command to resume"
    if isinstance(error, ValueError | FileNotFoundError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}; free some, then rerun the same command to resume"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which may never have been imported
        return (
            "no memory left on the device; fewer records at once, a shorter --max-length or "
            "--activation-checkpointing need less, and the same command resumes from the last checkpoint "
            f"({str(error)[:200]})"
        )
    return None


if __name__ == "__main__":
    main()
