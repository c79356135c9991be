"""Base of the processors of all families: image-only, fitted to a model, and able to count tokens.

transformers' own processors require video processors and therefore torchvision; these do not. Training and evaluation
build sequences themselves. They need the methods below: the number of placeholders of an image at a compress ratio, the
tokens around them, and the model inputs other than tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, PretrainedConfig, ProcessorMixin

from fcot_vl.models.base import HUB_OPTIONS


class ImageTextProcessor(ProcessorMixin):
    """Processor of images and chat messages into `input_ids`, `attention_mask` and the image inputs of the model."""

    text_kwargs: ClassVar[dict[str, Any]] = {"padding_side": "left"}

    image_token: str
    image_token_id: int

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load from the folder of a teacher or a student, and `fit` to the model in that folder, if there is one."""
        trusted = kwargs.setdefault("trust_remote_code", False)
        processor: Self = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        hub = {key: kwargs[key] for key in HUB_OPTIONS if kwargs.get(key) is not None}
        if PretrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub)[0].get("model_type"):
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
        # Always use the PIL backend, whatever the folder names, so that pixels do not depend on installed packages.
        images = cls._load_image_processor(pretrained_model_name_or_path, **kwargs)
        tokenizer = cls._load_tokenizer_from_pretrained("tokenizer", pretrained_model_name_or_path, **kwargs)
        return [images, tokenizer]

    @classmethod
    def _load_image_processor(cls, path: str | Path, **kwargs: Any) -> Any:
        return AutoImageProcessor.from_pretrained(path, backend="pil", **kwargs)

    def fit(self, config: Any) -> None:
        """Prepare prompts for the model with this configuration, a teacher or a student."""
        raise NotImplementedError

    @property
    def image_marks(self) -> tuple[list[int], list[int]]:
        """Tokens before and after the placeholders of an image that the chat template does not contain."""
        return [], []

    def count_image_tiles(self, height: int, width: int) -> int:
        """Return the number of tiles of an image, including an overview."""
        return 1

    def count_image_tokens(self, height: int, width: int, ratio: int = 1, n_images: int = 1) -> int:
        """Return the number of placeholders of an image.

        Args:
            height: Height of the image in pixels.
            width: Width of the image in pixels.
            ratio: Additional compress ratio, on top of that of this processor's model.
            n_images: Number of images of the prompt, which may share a budget.
        """
        raise NotImplementedError

    def image_inputs(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """Return the image inputs of one prompt for the model: `pixel_values`, and the output of `image_layout`."""
        raise NotImplementedError

    def image_layout(self, sizes: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """Return the layout inputs of the model for images of (height, width) in pixels, besides their features."""
        return {}

    def prompt_inputs(self, input_ids: Tensor) -> dict[str, Tensor]:
        """Return the model inputs for generation besides `input_ids` `[batch, length]` and images."""
        return {}


__all__ = ["ImageTextProcessor"]
