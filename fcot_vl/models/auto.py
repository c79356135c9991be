"""Student and processor classes by teacher, one entry per family."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoConfig

from fcot_vl.models.internvl.modeling import FCoTVLForConditionalGeneration
from fcot_vl.models.internvl.processing import FCoTVLProcessor
from fcot_vl.models.llava.modeling import (
    FCoTVLLlavaForConditionalGeneration,
    FCoTVLLlavaNextForConditionalGeneration,
    FCoTVLLlavaOnevisionForConditionalGeneration,
)
from fcot_vl.models.llava.processing import FCoTVLLlavaProcessor
from fcot_vl.models.loading import checked
from fcot_vl.models.qwen_vl.modeling import (
    FCoTVLQwen2VLForConditionalGeneration,
    FCoTVLQwen3VLForConditionalGeneration,
    FCoTVLQwen25VLForConditionalGeneration,
)
from fcot_vl.models.qwen_vl.processing import FCoTVLQwenVLProcessor


class Family(NamedTuple):
    """Classes for one kind of teacher.

    Attributes:
        student: Class of the students with their head, a `StudentModel`; at compress ratio 1 it is the teacher.
        processor: Class of the processor of teacher and students, an `ImageTextProcessor`.
    """

    student: Any
    processor: Any


FAMILIES: dict[str, Family] = {  # by the teacher's model_type
    "internvl": Family(FCoTVLForConditionalGeneration, FCoTVLProcessor),
    "llava": Family(FCoTVLLlavaForConditionalGeneration, FCoTVLLlavaProcessor),
    "llava_next": Family(FCoTVLLlavaNextForConditionalGeneration, FCoTVLLlavaProcessor),
    "llava_onevision": Family(FCoTVLLlavaOnevisionForConditionalGeneration, FCoTVLLlavaProcessor),
    "qwen2_vl": Family(FCoTVLQwen2VLForConditionalGeneration, FCoTVLQwenVLProcessor),
    "qwen2_5_vl": Family(FCoTVLQwen25VLForConditionalGeneration, FCoTVLQwenVLProcessor),
    "qwen3_vl": Family(FCoTVLQwen3VLForConditionalGeneration, FCoTVLQwenVLProcessor),
}


def read_config(path_or_id: str | Path) -> Any:
    """Load the configuration of a model folder or Hub id.

    Raises:
        ValueError: If there is no model; the message has one line.
    """
    with checked(path_or_id, "not a model"):
        return AutoConfig.from_pretrained(path_or_id, trust_remote_code=False)


def family_of(path_or_id: str | Path) -> Family:
    """Return the family of a teacher or a student.

    Raises:
        ValueError: If the model belongs to no supported family.
    """
    config = read_config(path_or_id)
    for family in FAMILIES.values():
        if isinstance(config, family.student.config_class.teacher_type):
            return family
    raise ValueError(
        f"{path_or_id}: {config.model_type} is not a supported model type; choose from {', '.join(FAMILIES)} in the "
        "Hugging Face layout"
    )


def load_processor(path_or_id: str | Path, config: Any = None) -> Any:
    """Load the processor of a teacher or a student.

    Args:
        path_or_id: Folder or Hub id of the model.
        config: Configuration of the student that the processor of a teacher should fit. Default: the model it is loaded
            with.

    Raises:
        ValueError: If the model belongs to no supported family, or the processor cannot be loaded.
    """
    family = family_of(path_or_id)
    with checked(path_or_id, "the processor cannot be loaded"):
        processor = family.processor.from_pretrained(path_or_id, trust_remote_code=False)
    if config is not None:  # otherwise it fits the model it was loaded with
        processor.fit(config)
    return processor
