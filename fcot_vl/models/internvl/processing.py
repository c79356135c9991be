"""Image-only processor: images and chat messages in, `input_ids`, `attention_mask` and `pixel_values` out.

The tiling is that of the original InternVL (`GotOcr2ImageProcessorPil`), unless the folder asks for padding
(`image_processing.py`). The processors of other families are in the files of their models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.processing_utils import MultiModalData

from fcot_vl.models.base_processor import ImageTextProcessor
from fcot_vl.models.internvl.image_processing import PaddingImageProcessor


class FCoTVLProcessor(ImageTextProcessor):
    """Processor that cuts images into tiles plus a thumbnail and expands each `<IMG_CONTEXT>` of a prompt.

    An image becomes `<img>` + `<IMG_CONTEXT>` * (tiles * image_seq_length) + `</img>`.

    Args:
        image_processor: Image processor that tiles and normalizes (`GotOcr2ImageProcessorPil`).
        tokenizer: Tokenizer that knows `<img>`, `</img>` and `<IMG_CONTEXT>`.
        image_seq_length: Number of visual tokens per tile after compression, for the model that this processor feeds.
        chat_template: Jinja template, in which an image is one `<IMG_CONTEXT>`.
    """

    images_kwargs: ClassVar[dict[str, Any]] = {"crop_to_patches": True}

    def __init__(
        self,
        image_processor: GotOcr2ImageProcessorPil | None = None,
        tokenizer: Any = None,
        image_seq_length: int = 256,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)
        self.image_seq_length = image_seq_length
        self.start_image_token = getattr(tokenizer, "start_image_token", "<img>")
        self.end_image_token = getattr(tokenizer, "end_image_token", "</img>")
        self.image_token = getattr(tokenizer, "context_image_token", "<IMG_CONTEXT>")
        self.start_image_token_id, self.end_image_token_id, self.image_token_id = (
            self._known_token_id(token)
            for token in (self.start_image_token, self.end_image_token, self.image_token)
        )

    def _known_token_id(self, token: str) -> int:
        token_id = self.tokenizer.get_vocab().get(token)
        if token_id is None:
            raise ValueError(
                f"The tokenizer does not know {token!r}; it is not the tokenizer of an InternVL model."
            )
        return token_id

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, image_seq_length: int | None = None, **kwargs: Any
    ) -> Self:
        """Load from any InternVL folder in the Hugging Face layout, or from a saved student.

        By default, `image_seq_length` is read from the `config.json` of the model, if there is one, so that prompt and
        model agree. Pass it to override.
        """
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if image_seq_length is not None:
            processor.image_seq_length = image_seq_length
        return processor

    @classmethod
    def _load_image_processor(cls, path: str | Path, **kwargs: Any) -> Any:
        settings, options = GotOcr2ImageProcessorPil.get_image_processor_dict(path, **kwargs)
        pads = settings.get("max_enlargement") is not None
        kind = PaddingImageProcessor if pads else GotOcr2ImageProcessorPil
        return kind.from_dict(settings, **options)

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """Tokenize one prompt or a batch of prompts and prepare their images.

        Args:
            images: Images in the order of their placeholders over the batch (one, a list, or a list per prompt).
            text: Prompt or prompts, with one `<IMG_CONTEXT>` per image.

        Returns:
            BatchFeature with `input_ids` and `attention_mask` `[batch, length]` (left-padded if padding is requested)
            and `pixel_values` `[n_tiles, 3, height, width]` over all images.

        Raises:
            ValueError: If there is no text, a video is passed, or the numbers of images and placeholders differ.
        """
        if text is None:
            raise ValueError("Pass text: a prompt with one <IMG_CONTEXT> per image.")
        if kwargs.pop("videos", None) is not None:
            raise ValueError("FCoT-VL reads images only; pass the frames you want as images.")
        return super().__call__(images=images, text=text, **kwargs)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Return the run of tokens that replaces the placeholder of image `image_idx` in a prompt."""
        n_tokens = self.image_seq_length * int(image_inputs["num_patches"][image_idx])
        return f"{self.start_image_token}{self.image_token * n_tokens}{self.end_image_token}"

    def _get_num_multimodal_tokens(
        self, image_sizes: list[list[int]] | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Return tokens and tiles per image from (height, width), without decoding pixels."""
        if image_sizes is None:
            return MultiModalData()
        images_kwargs = self._merge_kwargs(**kwargs)["images_kwargs"]
        tiles = [
            self.image_processor.get_number_of_image_patches(height, width, images_kwargs)
            for height, width in image_sizes
        ]
        tokens = [2 + self.image_seq_length * n for n in tiles]  # 2: <img> and </img>
        return MultiModalData(num_image_tokens=tokens, num_image_patches=tiles)

    def fit(self, config: Any) -> None:
        self.image_seq_length = config.image_seq_length

    def count_image_tokens(self, height: int, width: int, ratio: int = 1, n_images: int = 1) -> int:
        return self.count_image_tiles(height, width, n_images) * (self.image_seq_length // ratio)

    def count_image_tiles(self, height: int, width: int, n_images: int = 1) -> int:
        tiling = {**self.images_kwargs, "max_patches": self.max_tiles(n_images)}
        return int(self.image_processor.get_number_of_image_patches(height, width, tiling))

    def max_tiles(self, n_images: int) -> int:
        """Return the maximum number of tiles of each image of a prompt; its images share the budget of one.

        Source: `multi_modal_multi_image_get_item` of InternVL's training code.
        """
        most, least = int(self.image_processor.max_patches), int(self.image_processor.min_patches)
        return max(least, 1, most // max(1, n_images))

    @property
    def image_marks(self) -> tuple[list[int], list[int]]:
        return [self.start_image_token_id], [self.end_image_token_id]

    def image_inputs(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """Return `pixel_values` `[n_tiles, 3, height, width]` over all images of one prompt."""
        read = self.image_processor(
            list(images), crop_to_patches=True, max_patches=self.max_tiles(len(images)), return_tensors="pt"
        )
        return {"pixel_values": read["pixel_values"]}

    @property
    def image_token_ids(self) -> list[int]:
        """Ids of the tokens that belong to an image."""
        return [self.image_token_id, self.start_image_token_id, self.end_image_token_id]

    @property
    def unused_input_names(self) -> list[str]:
        """Outputs of the image processor that the model does not take."""
        return ["num_patches"]


__all__ = ["FCoTVLProcessor"]
