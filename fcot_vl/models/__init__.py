"""The student model: a teacher whose projector is a compressor followed by the student adaptor.

Importing this package registers the model with transformers (Auto classes, checkpoint renaming).
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)

from fcot_vl.models.auto import FAMILIES
from fcot_vl.models.compressors.registry import COMPRESSORS, build_compressor
from fcot_vl.models.internvl.configuration import COMPRESS_RATIOS, VISUAL_POSITIONS, FCoTVLConfig
from fcot_vl.models.internvl.modeling import FCoTVLForConditionalGeneration, FCoTVLModel, StudentAdaptor
from fcot_vl.models.internvl.processing import FCoTVLProcessor
from fcot_vl.models.shared_backbone import SharedBackbone, SharedOutput, answer_hidden


def _register() -> None:
    """Register the students with transformers. Safe to call twice (for example when the module is reloaded)."""
    for teacher, (student, processor) in FAMILIES.items():
        config, model = student.config_class, student.body
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, model, exist_ok=True)
        AutoModelForImageTextToText.register(config, student, exist_ok=True)
        AutoProcessor.register(config, processor, exist_ok=True)
        # Without these lines, transformers does not rename the weights of older checkpoints (`language_model.model.*`)
        # for classes outside its own package: it reinitializes every weight with only a warning.
        names = [(config.model_type, teacher)]
        for ours in (student, model):
            theirs = next(base for base in ours.__mro__ if base.__module__.startswith("transformers."))
            names.append((ours.__name__, theirs.__name__))
        for ours, theirs in names:
            mapping = get_checkpoint_conversion_mapping(theirs)
            if mapping is not None:
                register_checkpoint_conversion_mapping(ours, mapping, overwrite=True)


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
