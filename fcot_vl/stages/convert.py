"""The `convert` stage: read an original checkpoint folder and write a folder in the Hugging Face layout.

Everything is checked against the shapes of the target before the first byte is written. Weights are then read and
written shard by shard, so that memory holds one shard. Existing shards are kept, so an interrupted run can resume.
`config.json` is written last; without it, the folder cannot be loaded.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig, InternVLConfig, InternVLForConditionalGeneration

from fcot_vl.common.errors import CheckpointError
from fcot_vl.common.files import replacing, write_json
from fcot_vl.common.progress import progress_bar
from fcot_vl.common.stage import open_stage
from fcot_vl.convert.chat_templates import CONVERSATIONS, Conversation, chat_template
from fcot_vl.convert.checkpoint import Checkpoint
from fcot_vl.convert.config import image_processor, internvl_config, language_model_of
from fcot_vl.convert.tensor_map import LM_HEADS, Becomes, NameMap, Unused, runtime_name
from fcot_vl.convert.tokenizer import adds_bos, image_token_id, load_tokenizer
from fcot_vl.models import FCoTVLProcessor
from fcot_vl.models.loading import checked

logger = logging.getLogger(__name__)

INDEX = "model.safetensors.index.json"
NAMED = 5  # maximum number of names in a message


@dataclass(frozen=True)
class Plan:
    """Conversion plan for every tensor.

    Attributes:
        config: Target configuration.
        writes: Targets by source name.
        unused: Reason for leaving out a tensor, by source name.
    """

    config: InternVLConfig
    writes: dict[str, Becomes]
    unused: dict[str, str]


def convert(
    source: str | Path, output: str | Path, *, allow_bin: bool = False, image_token: int | None = None
) -> Path:
    """Write an original InternVL checkpoint in the Hugging Face layout; dtypes are unchanged.

    Args:
        source: Folder with the original `config.json`, weights and tokenizer files.
        output: Folder to write. Rerunning with the same arguments resumes an interrupted run, or returns if it is
            finished.
        allow_bin: Whether to read pickled `.bin` weights (with `weights_only=True`).
        image_token: Id of `<IMG_CONTEXT>`, for a folder without tokenizer files.

    Returns:
        `output`, a model folder for `AutoModelForImageTextToText` with tokenizer, processor and chat template.

    Raises:
        CheckpointError: If the checkpoint cannot be converted exactly; `output` then holds nothing that can be loaded.
        StageError: If `output` holds another stage or other settings.
    """
    source, output = Path(source), Path(output)
    with checked(source, "cannot be converted", own_code_refused=False):
        checkpoint = Checkpoint(source, allow_bin)
        language_model = language_model_of(checkpoint.config)
        tokenizer = load_tokenizer(source, language_model)
        token = image_token if image_token is not None else image_token_id(source, tokenizer)
        if token is None:
            raise CheckpointError(
                f"{source}: no tokenizer file contains the id of <IMG_CONTEXT>; add the files, or give "
                "--image-token-id"
            )
        plan = make_plan(checkpoint, language_model, internvl_config(checkpoint.config, token))
        conversation = CONVERSATIONS.get(checkpoint.config.get("template", ""))
    inputs = {
        "source": str(source),
        "tensors": f"{len(checkpoint.tensors)} in {len(checkpoint.shards)} files",
        "content": checkpoint.fingerprint(),
    }
    stage = open_stage(output, "convert", {"allow_bin": allow_bin, "image_token": image_token}, inputs)
    if stage.done:
        logger.info(f"convert: {output} is finished")
        return output
    logger.info(f"convert: InternVL with {language_model}, {inputs['tensors']}, {source} -> {output}")
    _write_weights(checkpoint, plan, output)
    if tokenizer is None:
        logger.warning(
            f"{source} has no tokenizer files: only weights, image processing and the chat template are "
            "written."
        )
    if conversation is None:
        logger.warning(
            f"the conversation template {checkpoint.config.get('template')!r} is not supported (supported are "
            f"{', '.join(CONVERSATIONS)}): no chat template is written; add a "
            "chat_template.jinja to the output folder."
        )
    _generation(checkpoint.config["llm_config"], tokenizer, conversation).save_pretrained(output)
    template = None if conversation is None else chat_template(conversation, adds_bos(tokenizer))
    _write_processor(checkpoint.config, plan.config, tokenizer, template, output)
    for name, reason in plan.unused.items():
        logger.info(f"not used: {name} ({reason})")
    plan.config.save_pretrained(output)
    stage.finish({"tensors": len(checkpoint.tensors), "unused": plan.unused, "image_token_id": token})
    return output


def make_plan(checkpoint: Checkpoint, language_model: str, config: InternVLConfig) -> Plan:
    """Match every stored tensor with a target tensor by name and shape, without reading weights.

    Raises:
        CheckpointError: If a tensor is unknown, missing or of the wrong shape, or a head that should be tied is not.
    """
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    names = NameMap(language_model, config)
    writes, unused, unknown, wrong = {}, {}, [], []
    for name, stored in checkpoint.tensors.items():
        becomes = names(name)
        if isinstance(becomes, Unused):
            unused[name] = becomes.reason
            continue
        if becomes is None or any(runtime_name(target) not in wanted for target in becomes.targets):
            unknown.append(name)
            continue
        writes[name] = becomes
        for target, shape in zip(becomes.targets, _shapes(becomes, stored.shape), strict=True):
            expected = wanted.pop(runtime_name(target))
            if shape != expected:
                wrong.append(
                    f"{name} {list(stored.shape)} makes {target} {list(shape or ())}, not {list(expected)}"
                )
    for what, found in (
        ("tensors that this architecture does not have", unknown),
        ("tensors of a shape that config.json does not give", wrong),
        ("no tensor for", sorted(wanted)),
    ):
        if found:
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            raise CheckpointError(f"{checkpoint.folder}: {what}: {', '.join(found[:NAMED])}{more}")
    for head in LM_HEADS:
        if head in unused and not _is_tied(checkpoint, head):
            raise CheckpointError(
                f"{checkpoint.folder}: config.json ties {head} to the embedding, but the two differ; "
                "set llm_config.tie_word_embeddings to false"
            )
    return Plan(config, writes, unused)


def _shapes(becomes: Becomes, shape: tuple[int, ...]) -> list[tuple[int, ...] | None]:
    """Return the shapes of the targets, or None for each if the source cannot be split."""
    try:
        parts = becomes.cut(torch.empty(shape, device="meta"))
    except RuntimeError:
        parts = []
    if len(parts) != len(becomes.targets):
        return [None] * len(becomes.targets)
    return [tuple(part.shape) for part in parts]


def _is_tied(checkpoint: Checkpoint, head: str) -> bool:
    embedding = "tok_embeddings" if head == "language_model.output.weight" else "embed_tokens"
    return torch.equal(checkpoint.read(head), checkpoint.read(f"language_model.model.{embedding}.weight"))


def _write_weights(checkpoint: Checkpoint, plan: Plan, output: Path) -> None:
    """Write one target shard per source shard, and an index if there are several."""
    by_shard: dict[str, list[str]] = {}
    for name in plan.writes:
        by_shard.setdefault(checkpoint.tensors[name].shard, []).append(name)
    files = ["model.safetensors"]
    if len(by_shard) > 1:
        files = [f"model-{i:05d}-of-{len(by_shard):05d}.safetensors" for i in range(1, len(by_shard) + 1)]
    with progress_bar() as progress:
        bar = progress.add_task("tensors", total=len(plan.writes))
        for file, names in zip(files, by_shard.values(), strict=True):
            if not (output / file).exists():
                shard: dict[str, Tensor] = {}
                for name in names:
                    becomes = plan.writes[name]
                    parts = becomes.cut(checkpoint.read(name))
                    shard |= {t: p.contiguous() for t, p in zip(becomes.targets, parts, strict=True)}
                    progress.advance(bar)
                with replacing(output / file) as partial:
                    save_file(shard, partial, {"format": "pt"})
            else:
                progress.advance(bar, len(names))
    if len(files) > 1:
        listed: dict[str, str] = {}
        for file, names in zip(files, by_shard.values(), strict=True):
            listed |= dict.fromkeys((target for name in names for target in plan.writes[name].targets), file)
        size = sum((output / file).stat().st_size for file in files)
        write_json(output / INDEX, {"metadata": {"total_size": size}, "weight_map": listed})


def _write_processor(
    original: dict[str, Any], config: InternVLConfig, tokenizer: Any, template: str | None, output: Path
) -> None:
    """Write the tiling, normalization, tokenizer and chat template."""
    images = image_processor(original)
    if tokenizer is None:
        images.save_pretrained(output)
        if template is not None:
            (output / "chat_template.jinja").write_text(template, encoding="utf-8")
        return
    FCoTVLProcessor(images, tokenizer, config.image_seq_length, template).save_pretrained(output)


def _generation(
    llm_config: dict[str, Any], tokenizer: Any, conversation: Conversation | None
) -> GenerationConfig:
    """Build the generation settings: greedy decoding that ends at the end of the turn or the language model's EOS."""
    own = llm_config.get("eos_token_id")
    ends = set(own if isinstance(own, list) else [own]) - {None}
    if tokenizer is not None and conversation is not None:
        ends.add(tokenizer.convert_tokens_to_ids(conversation.stop))
    pad = llm_config.get("pad_token_id") if tokenizer is None else tokenizer.pad_token_id
    return GenerationConfig(
        bos_token_id=llm_config.get("bos_token_id"), eos_token_id=sorted(ends) or None, pad_token_id=pad
    )
