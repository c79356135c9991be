"""Low-rank adaptation (LoRA) of the language model (Hu et al. 2022) through peft.

`post_train.py` adds the updates before training and merges them into the weights afterwards, so the result is an
ordinary model.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def add_lora(student: Any, rank: int, alpha: float) -> Any:
    """Freeze the language model and add low-rank updates to its linear layers, in place.

    The ViT is frozen too. All weights of the compressor and the projector stay trainable.

    Args:
        rank: Rank of the updates.
        alpha: Numerator of the scale alpha / rank of the updates.

    Returns:
        The tuner of peft, for `merge_lora`.

    Raises:
        ValueError: If peft is not installed.
    """
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    except ImportError:
        raise ValueError("lora_rank needs the peft package: pip install 'fcot-vl[lora]'") from None
    decoder = student.model.language_model
    linear = sorted(
        {name.rsplit(".", 1)[-1] for name, m in decoder.named_modules() if isinstance(m, nn.Linear)}
    )
    student.requires_grad_(False)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # any number works
        target_modules=linear,
        lora_dropout=0.0,
    )
    tuner = LoraModel(decoder, {"default": config}, "default")
    student.visual_adaptor.requires_grad_(True)
    return tuner


def merge_lora(tuner: Any) -> None:
    """Add the updates to the weights of their layers and remove the adapter modules, in place."""
    tuner.merge_and_unload()
