"""One frozen backbone, a teacher and several students on it: what re-alignment trains with.

The ViT runs once a step for all; the decoder runs once for the teacher (no gradient) and once per student (gradient
through its activations only). Only hidden states at answer positions leave this file, so that nobody ever holds
`[length, vocabulary]` logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fcot_vl.model.configuration import FCoTVLConfig
from fcot_vl.model.modeling import FCoTVLForConditionalGeneration, StudentAdaptor

Inputs = Mapping[str, Tensor]


@dataclass
class SharedOutput:
    """Hidden states before the language-model head at the answer positions, in the order of the batch.

    Attributes:
        teacher_hidden: `[n_answer, width]`, without gradient.
        student_hidden: the same per compress ratio, with gradient to that student's adaptor.
        labels: `[n_answer]`, the token each position predicts.
    """

    teacher_hidden: Tensor
    student_hidden: dict[int, Tensor]
    labels: Tensor


def answer_hidden(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states of the positions that predict an answer token.

    Args:
        hidden: `[batch, length, width]`.
        labels: `[batch, length]`, -100 outside answers. The state at position t predicts the token at t + 1.

    Returns:
        `[n_answer, width]` and the predicted tokens `[n_answer]`.
    """
    targets = labels[:, 1:]
    at = targets != -100
    return hidden[:, :-1][at], targets[at]


class SharedBackbone(nn.Module):
    """A frozen teacher and the student adaptors that are trained on its ViT and decoder.

    Args:
        teacher: the teacher as a model of compress ratio 1. It is frozen and kept in evaluation mode.
        ratios: compress ratios of the students.
        compressor, visual_positions: of all students; see `FCoTVLConfig`.

    Attributes:
        teacher: ViT, the teacher's projector, decoder and head.
        adaptors: one `StudentAdaptor` per ratio (keys are strings), each starting from the teacher's projector. They
            hold the only parameters that train.
    """

    def __init__(
        self,
        teacher: FCoTVLForConditionalGeneration,
        ratios: Sequence[int],
        compressor: str = "conv",
        visual_positions: str = "compact",
    ) -> None:
        super().__init__()
        self.teacher = teacher.requires_grad_(False).eval()
        self.adaptors = nn.ModuleDict()
        self._students: dict[
            int, FCoTVLForConditionalGeneration
        ] = {}  # views on shared modules, not registered
        for ratio in ratios:
            config = FCoTVLConfig.from_teacher(teacher.config, ratio, compressor, visual_positions)
            adaptor = StudentAdaptor(config)
            adaptor.load_state_dict(teacher.model.multi_modal_projector.state_dict(), strict=False)
            self.adaptors[str(ratio)] = adaptor.to(teacher.device, teacher.dtype)
            self._students[ratio] = _student_view(config, teacher, adaptor)

    @classmethod
    def from_teacher(
        cls,
        path_or_id: str | Path,
        ratios: Sequence[int],
        compressor: str = "conv",
        visual_positions: str = "compact",
        **kwargs: Any,
    ) -> SharedBackbone:
        """Load a teacher (see `FCoTVLForConditionalGeneration.from_teacher`) and set up its students."""
        teacher = FCoTVLForConditionalGeneration.from_teacher(path_or_id, compress_ratio=1, **kwargs)
        return cls(teacher, ratios, compressor, visual_positions)

    @property
    def lm_head_weight(self) -> Tensor:
        """`[vocabulary, width]`, shared by teacher and students."""
        return self.teacher.lm_head.weight

    def student(self, ratio: int) -> FCoTVLForConditionalGeneration:
        """The student of a ratio as a model of its own, on shared weights: to generate with, or `save_pretrained`.

        Raises:
            ValueError: the backbone has no student of that ratio.
        """
        if ratio not in self._students:
            have = ", ".join(map(str, self._students))
            raise ValueError(f"There is no student of ratio {ratio}; this backbone has {have}.")
        return self._students[ratio]

    def train(self, mode: bool = True) -> SharedBackbone:
        """Training mode for the adaptors only; the backbone stays as it is at inference."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def visual_features(self, pixel_values: Tensor) -> Tensor:
        """`[n_tiles, tokens_per_tile, visual_channels]`; see `FCoTVLModel.get_visual_features`. May be cached."""
        return self.teacher.get_visual_features(pixel_values)

    @torch.no_grad()
    def teacher_hidden(self, inputs: Inputs, visual_features: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's hidden states at the answer positions of `inputs`, and their labels."""
        return _hidden(self.teacher, inputs, visual_features)

    def student_hidden(self, ratio: int, inputs: Inputs, visual_features: Tensor) -> tuple[Tensor, Tensor]:
        """A student's hidden states at the answer positions of `inputs`, and their labels."""
        return _hidden(self.student(ratio), inputs, visual_features)

    def forward(
        self,
        teacher: Inputs,
        students: Mapping[int, Inputs],
        pixel_values: Tensor | None = None,
        visual_features: Tensor | None = None,
    ) -> SharedOutput:
        """Teacher and students on one batch, from one pass of the ViT.

        Args:
            teacher: `input_ids`, `attention_mask` and `labels` (and, if packed, `position_ids` instead of the mask),
                each `[batch, length]`, with the teacher's placeholders.
            students: the same per ratio, with that student's placeholders (another length) and the same answers.
            pixel_values: `[n_tiles, 3, height, width]`, or instead
            visual_features: `[n_tiles, tokens_per_tile, visual_channels]`, cached.

        Raises:
            ValueError: not exactly one of pixel_values and visual_features, or answers that differ between teacher
                and student.
        """
        if (pixel_values is None) == (visual_features is None):
            raise ValueError("Pass either pixel_values or visual_features.")
        if visual_features is None:
            visual_features = self.visual_features(pixel_values)  # type: ignore[arg-type]
        teacher_hidden, labels = self.teacher_hidden(teacher, visual_features)
        student_hidden = {}
        for ratio, inputs in students.items():
            student_hidden[ratio], student_labels = self.student_hidden(ratio, inputs, visual_features)
            if not torch.equal(student_labels, labels):
                raise ValueError(
                    f"The answers of the teacher ({labels.numel()} tokens) and of the student at ratio {ratio} "
                    f"({student_labels.numel()} tokens) differ; encode both from the same messages, without truncation."
                )
        return SharedOutput(teacher_hidden, student_hidden, labels)


def _student_view(
    config: FCoTVLConfig, teacher: FCoTVLForConditionalGeneration, adaptor: StudentAdaptor
) -> FCoTVLForConditionalGeneration:
    """A student model that owns nothing: the teacher's ViT, decoder and head, and the given adaptor."""
    config.vision_config, config.text_config = teacher.config.vision_config, teacher.config.text_config
    with torch.device("meta"):
        student = FCoTVLForConditionalGeneration(config)
    student.model.vision_tower = teacher.model.vision_tower
    student.model.language_model = teacher.model.language_model
    student.model.multi_modal_projector = adaptor
    student.lm_head = teacher.lm_head
    student.generation_config = teacher.generation_config
    return student.eval()


def _hidden(
    model: FCoTVLForConditionalGeneration, inputs: Inputs, visual_features: Tensor
) -> tuple[Tensor, Tensor]:
    """Last hidden states of `model` at the answer positions, and the tokens they predict."""
    outputs = model.model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs.get("attention_mask"),
        position_ids=inputs.get("position_ids"),
        mm_encoder_outputs=model.model.adapt_visual_features(visual_features),
        use_cache=False,
    )
    return answer_hidden(outputs.last_hidden_state, inputs["labels"])


__all__ = ["SharedBackbone", "SharedOutput", "answer_hidden"]
