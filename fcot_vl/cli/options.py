"""Options that several commands have in common, each with its help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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


def or_embedded_teacher(path: str | None) -> str:
    """Return the given model, or the folder of the embedded teacher if none is given."""
    from fcot_vl.models.tiny import tiny_teacher_path

    return path or str(tiny_teacher_path())
