"""Export of a student as a folder for publication, with a model card.

With this package installed, the folder loads with `import fcot_vl` and the Auto classes. With `remote_code` it also
contains the modules that a student needs and lists them in its configuration, so it loads anywhere with
`trust_remote_code=True`. Weights are copied without being loaded.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from fcot_vl.common.errors import one_line
from fcot_vl.common.files import write_json
from fcot_vl.common.stage import FILE as STAGE_FILE
from fcot_vl.common.stage import open_stage, read_stage
from fcot_vl.models.auto import Family, family_of, read_config
from fcot_vl.models.base import CompressedConfig
from fcot_vl.version import __version__

logger = logging.getLogger(__name__)

FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "chat_template.jinja",
    "merge.json",  # records the data on which a merged model must not be evaluated
)
PACKAGE = "fcot_vl.models."
IMPORT = re.compile(r"from fcot_vl\.models\.([\w.]+) import")

CARD = """---
{header}
---
# {title}

A document-reading vision-language model with **{share} of the visual tokens** of its base{tokens}
(compress ratio {ratio}, compressor `{compressor}`, visual positions `{positions}`). Made with
[FCoT-VL](https://arxiv.org/abs/2502.18512)'s method by `fcot-vl` {version}: a compressor and the projector were
re-aligned by self-distillation against the frozen base{then}.

- Base model: {base}
- License: {licence} (a student carries the license of its base)

## How to load it

```python
{loading}from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{name}"{remote})
processor = AutoProcessor.from_pretrained("{name}"{remote})
```

## How it was trained

{training}

## Scores

{scores}
"""


def export(
    student: str | Path,
    output: str | Path,
    *,
    remote_code: bool = False,
    base_model: str | None = None,
    license: str | None = None,
    result: str | Path | None = None,
    push: str | None = None,
) -> Path:
    """Write a student's folder for publication, and upload it to the hub if requested.

    Args:
        student: Folder written by `realign` or `post-train`.
        output: Folder to write.
        remote_code: Whether to add the modules with which the folder loads without this package.
        base_model: Name of the base model for the card, such as `OpenGVLab/InternVL2-2B`.
        license: License of the base model by its hub identifier, such as `mit`.
        result: Folder of an evaluation, or its `result.json`, whose scores are added to the card.
        push: Hub repository (`user/name`) to upload to. Default: no upload.

    Returns:
        `output`.

    Raises:
        ValueError: If the folder is not a student's, the result cannot be read, or the upload fails.
        StageError: If `output` holds another stage or other settings.
    """
    student, output = Path(student), Path(output)
    config = _student_config(student)
    scores = _scores(Path(result)) if result is not None else "Not measured yet."
    settings = {"remote_code": remote_code, "base_model": base_model, "licence": license}
    stage = open_stage(output, "export", settings, {"student": str(student), "result": str(result)})
    if stage.done:
        logger.info(f"export: {output} is finished")
    else:
        logger.info(f"export: {student} at compress ratio {config.compress_ratio} -> {output}")
        for pattern in FILES:
            for path in sorted(student.glob(pattern)):
                shutil.copy(path, output / path.name)
        family = family_of(student)
        if remote_code:
            _write_modules(output, family)
        processor = _auto_map(AutoProcessor=family.processor) if remote_code else {}
        _with_auto_map(student / "processor_config.json", output, processor)
        card = _card(config, push or output.name, remote_code, base_model, license, _record(student), scores)
        (output / "README.md").write_text(card, encoding="utf-8")
        classes = _auto_map(
            AutoConfig=family.student.config_class,
            AutoModel=family.student.body,
            AutoModelForImageTextToText=family.student,
        )
        _with_auto_map(student / "config.json", output, classes if remote_code else {})
        stage.finish({"compress_ratio": config.compress_ratio, "remote_code": remote_code})
    if push is not None:
        _push(output, push)
    return output


def _student_config(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no config.json here; give the folder of a student")
    config = read_config(folder)
    if not isinstance(config, CompressedConfig):
        raise ValueError(
            f"{folder}: a {config.model_type} model, not a student; only students need exporting"
        )
    if not list(folder.glob("*.safetensors")):
        raise ValueError(f"{folder}: has a configuration but no weights; let its training finish first")
    return config


def _write_modules(output: Path, family: Family) -> None:
    """Write the package modules that a family needs next to the weights, with their imports changed to match."""
    package = Path(__file__).resolve().parents[1] / "models"
    waiting = {c.__module__.removeprefix(PACKAGE) for c in (family.student, family.processor)}
    waiting.add(family.student.config_class.__module__.removeprefix(PACKAGE))
    while waiting:
        module = waiting.pop()
        source = (package / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        needs = re.findall(IMPORT, source)
        waiting |= {name for name in needs if not (output / f"{_flat(name)}.py").exists()}
        source = re.sub(IMPORT, lambda found: f"from .{_flat(found[1])} import", source)
        (output / f"{_flat(module)}.py").write_text(source, encoding="utf-8")


def _flat(module: str) -> str:
    """Return the name of a module below `fcot_vl.models` when it lies next to the weights, without subfolders."""
    return f"{module.replace('.', '_')}_fcot_vl"


def _auto_map(**classes: Any) -> dict[str, str]:
    """Return the `auto_map` of a folder: the location of each class by the Auto class that loads it."""
    return {auto: f"{_flat(c.__module__.removeprefix(PACKAGE))}.{c.__name__}" for auto, c in classes.items()}


def _with_auto_map(path: Path, output: Path, auto_map: dict[str, str]) -> None:
    if not path.exists():
        return
    settings = json.loads(path.read_text(encoding="utf-8"))
    if auto_map:
        settings["auto_map"] = auto_map
    write_json(output / path.name, settings)


def _record(student: Path) -> dict[str, Any] | None:
    """Return the `stage.json` of the stage that produced the student, or None."""
    for folder in (student, student.parent):  # re-alignment writes one subfolder per ratio
        if (folder / STAGE_FILE).exists():
            return read_stage(folder)
    return None


def _training(record: dict[str, Any] | None) -> str:
    """Describe the training for the card: last stage, seed, commit, date, hardware and all settings that are set."""
    if record is None:
        return "Not recorded."
    shown = {k: v for k, v in record.get("settings", {}).items() if v not in (None, False, "", [], {})}
    rows = "\n".join(f"| {key} | {json.dumps(value)} |" for key, value in shown.items())
    return (
        f"Last stage: `{record['stage']}`, seed {record.get('seed')}, commit {record.get('commit')}, "
        f"{record.get('date')}, on {record.get('hardware')}.\n\n"
        f"<details><summary>Settings</summary>\n\n| setting | value |\n| --- | --- |\n{rows}\n\n</details>"
    )


def _scores(path: Path) -> str:
    path = path / "result.json" if path.is_dir() else path
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if "benchmark" in record:
            return _benchmark_scores(record)
        tasks = record["tasks"]
        rows = [
            f"| {task} | {v['n']} | {100 * v['score']:.1f} [{100 * v['ci'][0]:.1f}, {100 * v['ci'][1]:.1f}] |"
            for task, v in tasks.items()
        ]
        low, high = record["mean_over_tasks_ci"]
        mean = f"| mean over tasks | {record['n']} | {100 * record['mean_over_tasks']:.1f} "
        rows.append(f"{mean}[{100 * low:.1f}, {100 * high:.1f}] |")
        where = f"Split `{record['split']}` (data {record['data_hash'][:12]}), {record['date']}, {record['hardware']}."
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the result of an evaluation ({one_line(error)})") from None
    return where + "\n\n| task | questions | score, 95% interval |\n| --- | ---: | ---: |\n" + "\n".join(rows)


def _benchmark_scores(record: dict[str, Any]) -> str:
    """Build the table of a benchmark's scores, with the names and scales of lmms-eval."""
    rows = [
        f"| {name} | {part['n']} | {part['score']:.4g} [{part['ci'][0]:.4g}, {part['ci'][1]:.4g}] |"
        for name, part in record["scores"].items()
        if part["n"]
    ]
    if not rows:
        raise ValueError("it has no scores")
    skipped = f", {record['skipped']} questions could not be asked" if record["skipped"] else ""
    where = f"{record['benchmark']}, split `{record['split']}` (data {record['data_hash'][:12]}{skipped})"
    table = "| score | questions | value, 95% interval |\n| --- | ---: | ---: |\n" + "\n".join(rows)
    return f"{where}, {record['date']}, {record['hardware']}.\n\n{table}"


def _card(
    config: Any,
    name: str,
    remote_code: bool,
    base_model: str | None,
    license: str | None,
    record: dict[str, Any] | None,
    scores: str,
) -> str:
    metadata = ModelCardData(
        base_model=base_model,
        library_name="transformers",
        license=license,
        pipeline_tag="image-text-to-text",
        tags=["ocr", "fcot-vl"],
    )
    return CARD.format(
        header=metadata.to_yaml(),
        title=name.split("/")[-1],
        name=name,
        share=f"1/{config.compress_ratio}",
        ratio=config.compress_ratio,
        tokens=f", {config.image_seq_length} a tile" if config.tokens_per_tile is not None else "",
        compressor=config.compressor,
        positions=config.visual_positions,
        version=__version__,
        base=base_model or "not stated",
        licence=license or "not stated; see the base model",
        loading="" if remote_code else "import fcot_vl  # registers the model\n",
        remote=", trust_remote_code=True" if remote_code else "",
        then=", then the whole model was trained on" if (record or {}).get("stage") == "post-train" else "",
        training=_training(record),
        scores=scores,
    )


def _push(folder: Path, repository: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        logger.info(f"export: pushing {folder} to {repository}")
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload by fcot-vl export")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ValueError(
            f"{folder} is written, but could not be pushed to {repository}: {one_line(error)}; "
            "log in with `hf auth login`, then run the same command"
        ) from None
