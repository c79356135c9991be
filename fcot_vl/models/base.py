"""Base classes of the students of every family: compression settings, and loading that rejects weights that do not fit.

A family (InternVL in `modeling.py`, others in their own files) is transformers' model with a compressor before its
projector. These mixins precede transformers' classes in the bases.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig

from fcot_vl.models.compressors.registry import COMPRESSORS, WINDOWED

COMPRESS_RATIOS = (1, 2, 4, 8, 16)
VISUAL_POSITIONS = ("kept", "compact")  # the first is the default; docs/LOG.md has measurements of both
ROWS_ONLY = dict.fromkeys(
    WINDOWED, "it takes windows of a tile's grid, and in this family only rows are compressed"
)
IMAGE_INPUTS = ("pixel_values", "visual_features", "mm_encoder_outputs")
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
NAMED = 5  # maximum number of weights listed in a message


class CompressedConfig(PreTrainedConfig):
    """Mixin for the configuration of a student: a teacher's with `compress_ratio`, `compressor` and `visual_positions`.

    Attributes:
        visual_positions: One of `positions`. If None, the first of them.

    Class attributes:
        teacher_type: Configuration class of the teacher.
        positions: Position schemes of this family, its default first.
        unfit: Compressors that this family cannot use, with the reason.
    """

    teacher_type: ClassVar[Any]
    positions: ClassVar[tuple[str, ...]] = VISUAL_POSITIONS
    unfit: ClassVar[dict[str, str]] = {}

    compress_ratio: int = 1
    compressor: str = "conv"
    visual_positions: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.visual_positions = self.visual_positions or self.positions[0]
        self.check_compression()

    @property
    def tokens_per_tile(self) -> int | None:
        """Number of visual tokens per tile that enter the compressor; None if images are not cut into equal tiles."""
        raise NotImplementedError

    def check_compression(self) -> None:
        """Check the compression settings.

        Raises:
            ValueError: If an option is unknown, or the ratio does not divide the tokens of a tile.
        """
        if self.compress_ratio not in COMPRESS_RATIOS:
            raise ValueError(f"compress_ratio must be one of {COMPRESS_RATIOS}, got {self.compress_ratio!r}.")
        if self.compressor not in COMPRESSORS:
            raise ValueError(f"compressor must be one of {tuple(COMPRESSORS)}, got {self.compressor!r}.")
        if self.compressor in self.unfit:
            fit = ", ".join(name for name in COMPRESSORS if name not in self.unfit)
            raise ValueError(
                f"compressor {self.compressor!r} does not fit {self.model_type}: {self.unfit[self.compressor]}; "
                f"choose one of {fit}."
            )
        if self.visual_positions not in self.positions:
            family = "" if self.positions == VISUAL_POSITIONS else f" for {self.model_type}"
            raise ValueError(
                f"visual_positions must be one of {self.positions}{family}, got {self.visual_positions!r}."
            )
        if self.tokens_per_tile is not None and self.tokens_per_tile % self.compress_ratio:
            raise ValueError(
                f"compress_ratio {self.compress_ratio} does not divide the {self.tokens_per_tile} visual tokens of a "
                "tile; choose a ratio that does."
            )

    @classmethod
    def from_teacher(
        cls,
        teacher: Any,
        compress_ratio: int,
        compressor: str = "conv",
        visual_positions: str | None = None,
    ) -> Self:
        """Build the configuration of a student from that of its teacher.

        `visual_positions` None selects the default of the family.

        Raises:
            ValueError: If the teacher is of another family or already compressed, or an option is invalid.
        """
        if not isinstance(teacher, cls.teacher_type):
            raise ValueError(
                f"The teacher must be of model_type {cls.teacher_type.model_type!r} (in the Hugging Face layout), "
                f"got model_type {getattr(teacher, 'model_type', None)!r}."
            )
        if getattr(teacher, "compress_ratio", 1) != 1:
            raise ValueError(
                f"The teacher is itself a student with compress_ratio {teacher.compress_ratio}; "
                "start from the model it was made from."
            )
        settings = teacher.to_dict()
        for key in ("model_type", "architectures", "image_seq_length", "transformers_version"):
            settings.pop(key, None)
        settings.update(
            compress_ratio=compress_ratio,
            compressor=compressor,
            visual_positions=visual_positions,
        )
        return cls(**settings)


class StudentModel:
    """Mixin for a student with its head: starts from a teacher, and rejects weights that do not fit.

    Class attributes:
        config_class: Configuration class, a `CompressedConfig`.
        body: Class of the student without its head.
        adaptors: Paths, below `model`, of the modules that compress and project; each holds a `compressor`.
    """

    config_class: ClassVar[Any]
    body: ClassVar[Any]
    adaptors: ClassVar[tuple[str, ...]] = ("multi_modal_projector",)
    model: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.model = self.body(config)
        self.post_init()  # type: ignore[attr-defined]

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate as in transformers.

        Raises:
            ValueError: If there are images, and another model assists or this one does. transformers hands the visual
                tokens of the main model to its assistant.
        """
        assists = getattr(kwargs.get("generation_config"), "is_assistant", False)
        assisted = kwargs.get("assistant_model") is not None
        images = [kwargs[name] for name in IMAGE_INPUTS if kwargs.get(name) is not None]
        if (assists or assisted) and any(map(len, images)):  # text alone has an empty dict
            raise ValueError(
                "a student cannot be used with assistant_model on images, in either role: the assistant would read the "
                "visual tokens of the other model; generate with one model alone"
            )
        return super().generate(*args, **kwargs)  # type: ignore[misc]

    @classmethod
    def from_teacher(
        cls,
        path_or_id: str | Path,
        compress_ratio: int,
        compressor: str = "conv",
        visual_positions: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a student from the weights of a teacher; only the compressor is newly initialized.

        Args:
            path_or_id: Teacher of this family in the Hugging Face layout (folder or Hub id).
            compress_ratio, compressor, visual_positions: See `CompressedConfig`.
            kwargs: Arguments of `from_pretrained` (`dtype`, `device_map`, `attn_implementation`, ...). Without `dtype`,
                the stored dtype of the teacher is used.

        Raises:
            ValueError: If the family or an option is wrong, or weights are missing, unexpected or of another shape.
        """
        hub = {key: kwargs[key] for key in HUB_OPTIONS if key in kwargs}
        teacher = AutoConfig.from_pretrained(path_or_id, trust_remote_code=False, **hub)
        config = cls.config_class.from_teacher(teacher, compress_ratio, compressor, visual_positions)
        model, info = cls._load_checked(path_or_id, True, config=config, **kwargs)
        if info["missing_keys"]:
            reset_compressors(model.visual_adaptor)
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as in transformers, but raise an error if weights are missing, unexpected or of another shape.

        Raises:
            ValueError: If weights do not fit; the message names them.
        """
        want_info = kwargs.pop("output_loading_info", False)
        model, info = cls._load_checked(pretrained_model_name_or_path, False, *args, **kwargs)
        return (model, info) if want_info else model

    @property
    def visual_adaptor(self) -> nn.Module:
        """The part that compresses and projects, and that re-alignment trains: a module, or a list of several."""
        found: list[nn.Module] = [self.model.get_submodule(path) for path in self.adaptors]
        return found[0] if len(found) == 1 else nn.ModuleList(found)

    @property
    def vision(self) -> nn.Module:
        """The ViT, which `freeze_vision` keeps frozen."""
        vision: nn.Module = self.model.vision_tower
        return vision

    @classmethod
    def _load_checked(
        cls, path: Any, from_teacher: bool, *args: Any, **kwargs: Any
    ) -> tuple[Self, dict[str, Any]]:
        kwargs.setdefault("trust_remote_code", False)
        kwargs["ignore_mismatched_sizes"] = (
            True  # report the names below instead of raising a bare RuntimeError
        )
        with _quiet_load_report():
            load = super().from_pretrained  # type: ignore[misc]
            model, info = load(path, *args, output_loading_info=True, **kwargs)
        new = {key for key in info["missing_keys"] if cls._is_new(key)}
        missing = info["missing_keys"] - new if from_teacher else info["missing_keys"]
        wrong = {
            "missing": sorted(missing),
            "unexpected": sorted(info["unexpected_keys"]),
            "of another shape": sorted(
                f"{key} ({list(found)}, expected {list(want)})"
                for key, found, want in info["mismatched_keys"]
            ),
        }
        if any(wrong.values()):
            lines = "; ".join(f"{what}: {_named(keys)}" for what, keys in wrong.items() if keys)
            hint = ""
            if new and not from_teacher:
                hint = f" To start a student from a teacher's weights use {cls.__name__}.from_teacher."
            raise ValueError(f"The weights in {path} do not fit the model. {lines}.{hint}")
        return model, info

    @classmethod
    def _is_new(cls, key: str) -> bool:
        """Return whether a weight belongs to a compressor, the only part of a student that its teacher lacks."""
        return ".compressor." in key and key.startswith(tuple(f"model.{path}." for path in cls.adaptors))

    def save_pretrained(
        self, save_directory: Any, *args: Any, save_original_format: bool = False, **kwargs: Any
    ) -> None:
        """Save as in transformers, but under the model's own weight names (`model.vision_tower.*`).

        `Trainer` loads checkpoints without renaming, so older names would load nothing on resume.
        """
        save = super().save_pretrained  # type: ignore[misc]
        save(save_directory, *args, save_original_format=save_original_format, **kwargs)


def _named(keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more


def reset_compressors(module: nn.Module) -> None:
    """Initialize every compressor below a module as its class defines."""
    for part in module.modules():
        if isinstance(part, tuple(COMPRESSORS.values())):
            part.reset_parameters()  # type: ignore[operator]


class StudentBody:
    """Mixin for a student without its head.

    `get_visual_features` returns the features that may be cached. The methods below use the parts that are trained.
    """

    def adapt_visual_features(self, visual_features: Tensor, **layout: Tensor) -> dict[str, Any]:
        """Compress and project the output of `get_visual_features` into the form of `forward(mm_encoder_outputs=)`."""
        raise NotImplementedError

    def visual_inputs(self, input_ids: Tensor, visual_features: Tensor, **layout: Tensor) -> dict[str, Any]:
        """Return the inputs of `forward` that replace images.

        Args:
            input_ids: `[batch, length]`.
            visual_features: Output of `get_visual_features`.
            layout: Information on the images that the family needs (see `image_layout` of the processor).
        """
        return {"mm_encoder_outputs": self.adapt_visual_features(visual_features, **layout)}

    def packed_position_ids(
        self, input_ids: Tensor, sequence_lengths: Sequence[int], **layout: Tensor
    ) -> Tensor:
        """Return the positions of the tokens of packed sequences: `[1, length]`, or `[3, 1, length]`.

        Positions restart in each sequence.

        Args:
            input_ids: `[1, length]`.
            sequence_lengths: Number of tokens of each sequence.
            layout: Information on the images that the family needs.
        """
        return torch.cat([torch.arange(n, device=input_ids.device) for n in sequence_lengths])[None]

    @torch.no_grad()
    def _initialize_weights(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        """Initialize a compressor as its class defines, unless it was loaded.

        transformers would initialize the layers of the compressor instead: it treats a module without own weights as
        loaded and checks only its layers. This method therefore checks all weights below. Layers come before the
        modules that contain them, so this initialization is the last.
        """
        if not isinstance(module, tuple(COMPRESSORS.values())):
            super()._initialize_weights(module, *args, **kwargs)  # type: ignore[misc]
        elif not all(getattr(weight, "_is_hf_initialized", False) for weight in module.parameters()):
            module.reset_parameters()  # type: ignore[operator]


@contextmanager
def _quiet_load_report() -> Iterator[None]:
    """Suppress transformers' table of weights that do not fit: here they are expected, or an error names them."""

    def is_not_report(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_not_report)
    try:
        yield
    finally:
        logger.removeFilter(is_not_report)


__all__ = [
    "COMPRESS_RATIOS",
    "VISUAL_POSITIONS",
    "CompressedConfig",
    "StudentBody",
    "StudentModel",
    "reset_compressors",
]
