"""The student model: an InternVL whose projector is a compressor followed by the student adaptor.

Importing this package registers the model with transformers (Auto classes, checkpoint renaming).
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)

from fcot_vl.model.compressor import COMPRESSORS, build_compressor
from fcot_vl.model.configuration import COMPRESS_RATIOS, VISUAL_POSITIONS, FCoTVLConfig
from fcot_vl.model.modeling import FCoTVLForConditionalGeneration, FCoTVLModel, StudentAdaptor
from fcot_vl.model.processing import FCoTVLProcessor
from fcot_vl.model.teacher_student import SharedBackbone, SharedOutput, answer_hidden


def _register() -> None:
    """Make transformers know the student. Safe to run twice (a reloaded module)."""
    AutoConfig.register("fcot_vl", FCoTVLConfig, exist_ok=True)
    AutoModel.register(FCoTVLConfig, FCoTVLModel, exist_ok=True)
    AutoModelForImageTextToText.register(FCoTVLConfig, FCoTVLForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(FCoTVLConfig, FCoTVLProcessor, exist_ok=True)
    # Without these two lines transformers skips the renaming of older InternVL checkpoints (`language_model.model.*`)
    # for classes outside its own package, and re-initialises every weight with no more than a warning.
    for student, teacher in (("fcot_vl", "internvl"), ("FCoTVLModel", "InternVLModel")):
        mapping = get_checkpoint_conversion_mapping(teacher)
        register_checkpoint_conversion_mapping(student, mapping, overwrite=True)


_register()

__all__ = [
    "COMPRESSORS",
    "COMPRESS_RATIOS",
    "VISUAL_POSITIONS",
    "FCoTVLConfig",
    "FCoTVLForConditionalGeneration",
    "FCoTVLModel",
    "FCoTVLProcessor",
    "SharedBackbone",
    "SharedOutput",
    "StudentAdaptor",
    "answer_hidden",
    "build_compressor",
]
