"""Low-rank adaptation of the language model (Hu et al. 2022) through peft: what learns besides the adaptor.

`post_train.py` puts it in before training and merges it into the weights afterwards, so that what comes out is a model
like any other.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def add_lora(student: Any, rank: int, alpha: float) -> Any:
    """Freeze the language model and put low-rank updates beside its linear layers, in place.

    The ViT freezes too; compressor and projector go on learning whole.

    Args:
        rank: of the updates.
        alpha: the update is scaled by alpha / rank.

    Returns:
        peft's tuner, for `merge_lora`.

    Raises:
        ValueError: peft is not installed.
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
        lora_alpha=alpha,  # type: ignore[arg-type]  # any number
        target_modules=linear,
        lora_dropout=0.0,
    )
    tuner = LoraModel(decoder, {"default": config}, "default")
    student.visual_adaptor.requires_grad_(True)
    return tuner


def merge_lora(tuner: Any) -> None:
    """Add the updates to the weights beneath them and take the rest out again, in place."""
    tuner.merge_and_unload()
