"""One frozen backbone with a teacher and several students, for re-alignment.

The ViT runs once per step for all models. The decoder runs once for the teacher (no gradient) and once per student
(gradient through its activations only). Only hidden states at answer positions leave this module, so that `[length,
vocabulary]` logits are never held in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fcot_vl.models.auto import family_of
from fcot_vl.models.base import reset_compressors
from fcot_vl.models.drop_path import add_drop_path
from fcot_vl.models.packed_attention import packed_inputs

Inputs = Mapping[str, Any]


@dataclass
class SharedOutput:
    """Hidden states before the language-model head at the answer positions, in the order of the batch.

    Attributes:
        teacher_hidden: `[n_answer, width]`, without gradient.
        student_hidden: `[n_answer, width]` per compress ratio, with gradient to the adaptor of that student.
        labels: `[n_answer]`, the token that each position predicts.
    """

    teacher_hidden: Tensor
    student_hidden: dict[int, Tensor]
    labels: Tensor


def answer_hidden(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Select the hidden states of the positions that predict an answer token.

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
        teacher: Teacher as a student of compress ratio 1 (see `families`); it is frozen and kept in evaluation mode.
        ratios: Compress ratios of the students.
        compressor, visual_positions: Settings of all students; see `FCoTVLConfig`.

    Attributes:
        teacher: ViT, projector, decoder and head of the teacher.
        adaptors: One adaptor (compressor and projector) per ratio, with string keys. Each starts from the projector of
            the teacher. They hold the only trainable parameters.
    """

    def __init__(
        self,
        teacher: Any,
        ratios: Sequence[int],
        compressor: str = "conv",
        visual_positions: str | None = None,
    ) -> None:
        super().__init__()
        self.teacher = teacher.requires_grad_(False).eval()
        self._trained_layers: list[nn.Module] = []  # backbone layers that are set to training mode
        self.adaptors = nn.ModuleDict()
        self._students: dict[int, Any] = {}  # views on shared modules, not registered
        for ratio in ratios:
            student = _student_view(teacher, ratio, compressor, visual_positions)
            self.adaptors[str(ratio)] = student.visual_adaptor
            self._students[ratio] = student

    @classmethod
    def from_teacher(
        cls,
        path_or_id: str | Path,
        ratios: Sequence[int],
        compressor: str = "conv",
        visual_positions: str | None = None,
        **kwargs: Any,
    ) -> SharedBackbone:
        """Load a teacher of any family (see `StudentModel.from_teacher`) and set up its students.

        Raises:
            ValueError: If the family is not supported, or does not have the position scheme.
        """
        family = family_of(path_or_id).student
        teacher = family.from_teacher(path_or_id, 1, **kwargs)
        return cls(teacher, ratios, compressor, visual_positions)

    @property
    def lm_head_weight(self) -> nn.Parameter:
        """`[vocabulary, width]`, shared by teacher and students; sharded under FSDP or ZeRO-3."""
        weight: nn.Parameter = self.teacher.lm_head.weight
        return weight

    def student(self, ratio: int) -> Any:
        """Return the student of a ratio as a separate model with shared weights, for generation or `save_pretrained`.

        Raises:
            ValueError: If the backbone has no student of that ratio.
        """
        if ratio not in self._students:
            have = ", ".join(map(str, self._students))
            raise ValueError(f"There is no student of ratio {ratio}; this backbone has {have}.")
        return self._students[ratio]

    def train(self, mode: bool = True) -> SharedBackbone:
        """Set training mode for the adaptors only; the backbone computes as in inference.

        Layers that recompute activations or drop paths do so in training mode, so only these layers are set to it.
        Their submodules (dropout) stay in evaluation mode.
        """
        super().train(mode)
        self.teacher.eval()
        for layer in self._trained_layers:
            layer.training = mode
        return self

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Do not store activations of the decoder layers in the students' passes; see the method of transformers."""
        decoder = self.teacher.model.language_model
        decoder.activation_checkpointing_enable(**kwargs)
        self._trained_layers += list(decoder.layers)

    def drop_path(self, rate: float) -> None:
        """Use stochastic depth in the ViT during training; teacher and students see the same. See `add_drop_path`."""
        add_drop_path(self.teacher.vision, rate)
        self._trained_layers += list(self.teacher.vision.encoder.layer)

    @property
    def _no_split_modules(self) -> list[str]:
        """Layer classes that FSDP shards as units."""
        return list(self.teacher._no_split_modules or [])

    @torch.no_grad()
    def visual_features(self, pixel_values: Tensor, **layout: Tensor) -> Tensor:
        """Compute features `[n_tiles, tokens_per_tile, visual_channels]`, which may be cached.

        See `FCoTVLModel.get_visual_features`.
        """
        features: Tensor = self.teacher.model.get_visual_features(pixel_values, **layout)
        return features

    @torch.no_grad()
    def teacher_hidden(
        self, inputs: Inputs, visual_features: Tensor, **layout: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the hidden states of the teacher at the answer positions of `inputs`, and their labels."""
        return _hidden(self.teacher, inputs, visual_features, layout)

    def student_hidden(
        self, ratio: int, inputs: Inputs, visual_features: Tensor, **layout: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the hidden states of a student at the answer positions of `inputs`, and their labels."""
        return _hidden(self.student(ratio), inputs, visual_features, layout)

    def forward(
        self,
        teacher: Inputs,
        students: Mapping[int, Inputs],
        pixel_values: Tensor | None = None,
        visual_features: Tensor | None = None,
        **layout: Tensor,
    ) -> SharedOutput:
        """Run teacher and students on one batch with one pass of the ViT.

        Args:
            teacher: `input_ids`, `attention_mask` and `labels`, each `[batch, length]`, with the placeholders of the
                teacher; if packed into one row, `sequence_lengths` instead of the mask.
            students: The same inputs per ratio, with the placeholders of that student (another length) and the same
                answers.
            pixel_values: `[n_tiles, 3, height, width]`. Pass either these or `visual_features`.
            visual_features: `[n_tiles, tokens_per_tile, visual_channels]`, cached.
            layout: Information on the images that the family needs (see `image_layout` of the processor).

        Raises:
            ValueError: If not exactly one of `pixel_values` and `visual_features` is passed, or the answers of teacher
                and student differ.
        """
        if (pixel_values is None) == (visual_features is None):
            raise ValueError("Pass either pixel_values or visual_features.")
        if visual_features is None:
            visual_features = self.visual_features(pixel_values, **layout)  # type: ignore[arg-type]
        teacher_hidden, labels = self.teacher_hidden(teacher, visual_features, **layout)
        student_hidden = {}
        for ratio, inputs in students.items():
            student_hidden[ratio], student_labels = self.student_hidden(
                ratio, inputs, visual_features, **layout
            )
            if not torch.equal(student_labels, labels):
                raise ValueError(
                    f"The answers of the teacher ({labels.numel()} tokens) and of the student at ratio {ratio} "
                    f"({student_labels.numel()} tokens) differ; encode both from the same messages, without truncation."
                )
        return SharedOutput(teacher_hidden, student_hidden, labels)


def _student_view(teacher: Any, ratio: int, compressor: str, visual_positions: str | None) -> Any:
    """Build a student model that owns only its adaptor, which starts from the projector of the teacher."""
    settings = teacher.config_class.from_teacher(teacher.config, ratio, compressor, visual_positions)
    settings.vision_config, settings.text_config = teacher.config.vision_config, teacher.config.text_config
    with torch.device("meta"):
        student = type(teacher)(settings)
    _share(student, teacher, [f"model.{path}" for path in teacher.adaptors])
    adaptor = student.visual_adaptor.to_empty(device=teacher.device).to(teacher.dtype)
    adaptor.load_state_dict(teacher.visual_adaptor.state_dict(), strict=False)
    reset_compressors(adaptor)
    adaptor.requires_grad_(True)
    student.generation_config = teacher.generation_config
    return student.eval()


def _share(student: nn.Module, teacher: nn.Module, own: Sequence[str]) -> None:
    """Replace the student's modules and parameters with the teacher's, except those at the paths `own`."""
    for name, module in teacher.named_children():
        below = [path.removeprefix(f"{name}.") for path in own if path.startswith(f"{name}.")]
        if below:
            _share(getattr(student, name), module, below)
        elif name not in own:
            setattr(student, name, module)
    for name, parameter in teacher.named_parameters(recurse=False):
        setattr(student, name, parameter)


def _hidden(
    model: Any, inputs: Inputs, visual_features: Tensor, layout: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the last hidden states of `model` at the answer positions, and the tokens they predict."""
    outputs = model.model(
        input_ids=inputs["input_ids"],
        **context_inputs(model.model, inputs, layout),
        **model.model.visual_inputs(inputs["input_ids"], visual_features, **layout),
        use_cache=False,
    )
    return answer_hidden(outputs.last_hidden_state, inputs["labels"])


def context_inputs(body: Any, inputs: Inputs, layout: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the inputs that define which tokens attend to each other: a batch's mask, or those of a packed row."""
    lengths = inputs.get("sequence_lengths")
    if lengths is None:
        return {"attention_mask": inputs.get("attention_mask")}
    return packed_inputs(body, inputs["input_ids"], lengths, **layout)


__all__ = ["SharedBackbone", "SharedOutput", "answer_hidden", "context_inputs"]
