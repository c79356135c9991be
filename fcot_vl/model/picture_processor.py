"""What the processors of all families have in common: image-only, fitted to a model, and able to count.

transformers' own processors insist on video processors, and with them on torchvision; these do without. Training and
evaluation make sequences themselves and need what is below: how many placeholders a picture has at a compress ratio,
what stands around them, and what the model takes beside tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, PretrainedConfig, ProcessorMixin

from fcot_vl.model.student import HUB_OPTIONS


class PictureProcessor(ProcessorMixin):
    """Pictures and chat messages in, `input_ids`, `attention_mask` and what the model takes of pictures out."""

    text_kwargs: ClassVar[dict[str, Any]] = {"padding_side": "left"}

    image_token: str
    image_token_id: int

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load from the folder of a teacher or a student, and `fit` to the model there, if there is one."""
        processor: Self = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        hub = {key: kwargs[key] for key in HUB_OPTIONS if kwargs.get(key) is not None}
        if PretrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub)[0].get("model_type"):
            trusted = kwargs.get("trust_remote_code")
            config = AutoConfig.from_pretrained(
                pretrained_model_name_or_path, trust_remote_code=trusted, **hub
            )
            processor.fit(config)
        return processor

    @classmethod
    def _get_arguments_from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        processor_dict: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        # Always the PIL backend, whatever class the folder names, so that pixels do not depend on what is installed.
        images = cls._load_image_processor(pretrained_model_name_or_path, **kwargs)
        tokenizer = cls._load_tokenizer_from_pretrained("tokenizer", pretrained_model_name_or_path, **kwargs)
        return [images, tokenizer]

    @classmethod
    def _load_image_processor(cls, path: str | Path, **kwargs: Any) -> Any:
        return AutoImageProcessor.from_pretrained(path, backend="pil", **kwargs)

    def fit(self, config: Any) -> None:
        """Prepare prompts for the model of this configuration, a teacher's or a student's."""
        raise NotImplementedError

    @property
    def picture_marks(self) -> tuple[list[int], list[int]]:
        """Tokens that stand before and after a picture's placeholders and are not in the chat template."""
        return [], []

    def picture_tiles(self, height: int, width: int) -> int:
        """Tiles of a picture, an overview among them."""
        return 1

    def picture_tokens(self, height: int, width: int, ratio: int = 1) -> int:
        """Placeholders of a picture for this processor's model, or for one compressed `ratio` times more."""
        raise NotImplementedError

    def picture_inputs(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """Pictures as the model takes them: `pixel_values`, and what `picture_layout` gives."""
        raise NotImplementedError

    def picture_layout(self, sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """What the model must know of pictures of (height, width) in pixels beside their features."""
        return {}

    def prompt_inputs(self, input_ids: Tensor) -> dict[str, Tensor]:
        """What the model takes beside `input_ids` `[batch, length]` and pictures when it generates."""
        return {}


__all__ = ["PictureProcessor"]
