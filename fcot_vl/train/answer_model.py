"""Model of stage 2 during training: a student, or a teacher as the control, with its own loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fcot_vl.models import answer_hidden
from fcot_vl.models.shared_backbone import context_inputs
from fcot_vl.train.losses import AnswerLoss, answer_cross_entropy


class AnswerModel(nn.Module):
    """Model that computes its own loss on answer tokens, so that full logits are never created.

    Args:
        model: Model to train.
        freeze_vision: Whether to freeze the ViT and keep it in evaluation mode.
    """

    def __init__(self, model: Any, freeze_vision: bool) -> None:
        super().__init__()
        self.model = model
        self.freeze_vision = freeze_vision
        if freeze_vision:
            model.vision.requires_grad_(False)

    def train(self, mode: bool = True) -> AnswerModel:
        super().train(mode)
        if self.freeze_vision:
            self.model.vision.eval()
        return self

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Enable activation checkpointing; see the method of transformers with this name."""
        self.model.activation_checkpointing_enable(**kwargs)

    @property
    def _no_split_modules(self) -> list[str]:
        """Return the names of the layers that FSDP shards as units."""
        return list(self.model._no_split_modules or [])

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        sequence_lengths: Sequence[int] | None = None,
        pixel_values: Tensor | None = None,
        visual_features: Tensor | None = None,
        denominator: Tensor | float | None = None,
        blank_image: bool = False,
        **layout: Tensor,
    ) -> AnswerLoss:
        """Compute the cross-entropy summed over the answer tokens and divided by `denominator`.

        Args:
            input_ids, labels, attention_mask: `[batch, length]`. Batches padded on the right need no mask.
            sequence_lengths: Lengths of the sequences packed into one row.
            pixel_values: `[n_tiles, 3, height, width]`. Omit them if `visual_features` are given.
            visual_features: `[n_tiles, teacher's tokens per tile, visual channels]`, cached features.
            denominator: Divisor of the sum. Default: the number of answer tokens.
            blank_image: True if no sequence refers to the image. It is then computed and counts nothing, so that every
                process uses the same weights.
            layout: Layout of the images that the family needs (see the processor's `image_layout`).
        """
        inner = self.model.model
        if pixel_values is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_vision):
                visual_features = inner.get_visual_features(pixel_values, **layout)
        image_inputs, blank = {}, None
        if blank_image:
            blank = inner.adapt_visual_features(visual_features, **layout)["image"]
            layout = {}
        elif visual_features is not None:
            image_inputs = inner.visual_inputs(input_ids, visual_features, **layout)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "sequence_lengths": sequence_lengths,
        }
        outputs = inner(
            input_ids=input_ids, **context_inputs(inner, inputs, layout), **image_inputs, use_cache=False
        )
        hidden, targets = answer_hidden(outputs.last_hidden_state, labels)
        found = answer_cross_entropy(hidden, self.model.lm_head.weight, targets, denominator=denominator)
        return found if blank is None else found._replace(loss=found.loss + 0.0 * _sum(blank))


def _sum(adapted: Any) -> Any:
    """Add up the adapted features of images, also those of deeper layers (Qwen3-VL)."""
    parts = [adapted.pooler_output, *(getattr(adapted, "deepstack_features", None) or [])]
    return sum(tensor.sum() for part in parts for tensor in part)
