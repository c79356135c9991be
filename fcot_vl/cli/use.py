"""Commands that use one model: visualize, ask, export."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

logger = logging.getLogger(__name__)

app = typer.Typer()


@app.command()
def visualize(
    image: Annotated[Path, typer.Argument(help="Image file.")],
    question: Annotated[str, typer.Argument(help="Question about the image.")],
    output: Annotated[
        Path,
        typer.Option(
            help="Output folder. Its attention.png, attention.html and attention.json are replaced."
        ),
    ],
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

    from fcot_vl.common.console import show
    from fcot_vl.stages.ask import ask as run

    disable_progress_bar()
    answer = run(image, question, model, max_new_tokens)
    show(answer.text)
    for line in (answer.answered_by, answer.notice):
        if line:
            logger.info(line)


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
        logger.warning("--licence is now --license; the old name will be removed in the next version")
    run(
        student,
        output,
        remote_code=remote_code,
        base_model=base_model,
        license=license or licence,
        result=result,
        push=push,
    )
