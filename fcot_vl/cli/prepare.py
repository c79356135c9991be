"""Commands that prepare models and data: convert, inspect, synthesize, label, rewrite, cot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcot_vl.cli.options import (
    BatchSize,
    Endpoint,
    EndpointModel,
    MaxNewTokens,
    MaxSkipped,
    Output,
    PriceIn,
    PriceOut,
    Prompts,
    Records,
    Requests,
    StyleFile,
    Teacher,
    Timeout,
)

app = typer.Typer()


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
    from fcot_vl.stages.inspect_checkpoint import inspect as run
    from fcot_vl.stages.inspect_checkpoint import page_size

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
            raise ValueError(
                "--task selects tasks of MiniDoc, and --kind makes OCR-like pages: give one of the two"
            )
        synthesize_ocr(output, kind, records, seed, workers, Sources(corpus, html), internvl)
        return
    if workers > 1 or corpus or html or internvl:
        raise ValueError(
            "--workers, --corpus, --html and --internvl apply to OCR-like pages only: add --kind"
        )
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
            output=output,
            data=data,
            images=images,
            teacher=teacher,
            questions=tuple(question or ()),
            keep_truth=keep_truth,
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
            output=output,
            data=data,
            writer=writer,
            style=style,
            prompts=prompts,
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
            output=output,
            data=data,
            teacher=teacher,
            samples=samples,
            temperature=temperature,
            keep=keep,
            select=select,  # type: ignore[arg-type]
            vanilla_ratio=vanilla_ratio,
            prompts=prompts,
            style=style,
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
