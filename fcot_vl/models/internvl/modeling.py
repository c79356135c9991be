"""The student: InternVL with its projector replaced by compressor `V_c` + student adaptor `A_s`.

Shapes for one sample, InternVL2-2B at ratio 2: tiles `[n, 3, 448, 448]` -> ViT `[n, 1025, 1024]` -> drop CLS, pixel
shuffle `[n, 256, 4096]` -> `V_c` `[n, 128, 4096]` -> `A_s` `[n, 128, 2048]` -> scattered into the prompt -> LLM.
Everything except `V_c` is transformers' own code and uses the weight names of the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import InternVLForConditionalGeneration, InternVLModel
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.internvl.modeling_internvl import InternVLMultiModalProjector
from transformers.utils.import_utils import torch_compilable_check

from fcot_vl.models.base import StudentBody, StudentModel
from fcot_vl.models.compressors.registry import build_compressor
from fcot_vl.models.internvl.configuration import FCoTVLConfig
from fcot_vl.models.packed_attention import in_rows


def _is_empty(cache: Cache | None) -> bool:
    return cache is None or cache.get_seq_length() == 0


class StudentAdaptor(InternVLMultiModalProjector):
    """`A_s(V_c(x))`: a compressor followed by the teacher's projector.

    `[n_tiles, tokens_per_tile, visual_channels]` -> `[n_tiles, tokens_per_tile / ratio, text_width]`.
    """

    def __init__(self, config: FCoTVLConfig) -> None:
        super().__init__(config)
        self.compressor = build_compressor(config)

    def forward(self, image_features: Tensor) -> Tensor:
        return super().forward(self.compressor(image_features))


class FCoTVLModel(StudentBody, InternVLModel):
    """ViT, student adaptor and decoder, without the language-model head."""

    config: FCoTVLConfig
    config_class = FCoTVLConfig

    def __init__(self, config: FCoTVLConfig) -> None:
        super().__init__(config)
        self.multi_modal_projector = StudentAdaptor(config)
        self.post_init()

    def get_visual_features(self, pixel_values: Tensor) -> Tensor:
        """Run the ViT and pixel shuffle, without the adaptor.

        Teacher and students share this output, and it may be cached.

        Args:
            pixel_values: `[n_tiles, 3, height, width]`.

        Returns:
            `[n_tiles, tokens_per_tile, visual_channels]`, tokens in raster order.
        """
        layer = self.config.vision_feature_layer
        pixel_values = pixel_values.to(dtype=self.dtype)
        outputs = self.vision_tower(
            pixel_values=pixel_values, return_dict=True, output_hidden_states=False if layer == -1 else layer
        )
        features = outputs.last_hidden_state if layer == -1 else outputs.hidden_states[layer]
        if self.config.vision_feature_select_strategy == "default":
            features = features[:, 1:]
        side = int(features.shape[1] ** 0.5)
        features = features.unflatten(1, (side, side))
        return self.pixel_shuffle(features, scale_factor=self.config.downsample_ratio).flatten(1, 2)

    def adapt_visual_features(
        self, visual_features: Tensor, **layout: Tensor
    ) -> dict[str, BaseModelOutputWithPooling]:
        """Run the adaptor on the output of `get_visual_features`; pass the result to `forward(mm_encoder_outputs=)`.

        Raises:
            ValueError: If the features do not come from this model's ViT.
        """
        expected = (self.config.tokens_per_tile, self.config.visual_channels)
        if visual_features.ndim != 3 or tuple(visual_features.shape[1:]) != expected:
            raise ValueError(
                f"visual_features must be [n_tiles, {expected[0]}, {expected[1]}] (the output of get_visual_features), "
                f"got {list(visual_features.shape)}."
            )
        adaptor_dtype = self.multi_modal_projector.linear_1.weight.dtype
        adapted = self.multi_modal_projector(visual_features.to(self.device, adaptor_dtype))
        return {"image": BaseModelOutputWithPooling(pooler_output=adapted)}

    def visual_position_ids(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Compute the positions of the tokens of a prompt under the configured scheme.

        With "kept", a visual token takes the position of the first token of the teacher's tile that it replaces (number
        j * ratio, or the upper left token of a window), and text has the same position as in the teacher. With
        "compact", tokens are numbered consecutively. Padding has position 0 and is not counted.

        Args:
            input_ids: `[batch, length]`, starting at the first token of the sequence.
            attention_mask: `[batch, length]`, 0 on padding.

        Returns:
            `[batch, length]`, int64.
        """
        real = torch.ones_like(input_ids, dtype=torch.bool)
        if attention_mask is not None:
            real = attention_mask.to(input_ids.device) != 0
        visual = (input_ids == self.config.image_token_id) & real
        of_tile = torch.tensor(self.config.position_steps, device=input_ids.device)
        number = (visual.cumsum(-1) - 1) % len(of_tile)  # index of a visual token within its tile
        steps = torch.where(visual, of_tile[number], 1) * real
        return (steps.cumsum(-1) - steps) * real

    def packed_position_ids(
        self, input_ids: Tensor, sequence_lengths: Sequence[int], **layout: Tensor
    ) -> Tensor:
        """See `StudentBody.packed_position_ids`; uses the configured scheme."""
        rows, real = in_rows(input_ids, sequence_lengths)
        return self.visual_position_ids(rows, real)[real][None]

    def get_placeholder_mask(
        self, input_ids: Tensor | None, inputs_embeds: Tensor, image_features: Tensor
    ) -> Tensor:
        """Return the mask of the visual tokens in the prompt, `[batch, length, 1]`.

        Raises:
            ValueError: If the number of image placeholders differs from the number of visual tokens of the tiles.
        """
        if input_ids is None:
            token = torch.full((), self.config.image_token_id, dtype=torch.long, device=inputs_embeds.device)
            mask = (inputs_embeds == self.get_input_embeddings()(token)).all(-1)
        else:
            mask = (input_ids == self.config.image_token_id).to(inputs_embeds.device)
        n_tiles, per_tile = image_features.shape[:2]
        needs = f"{n_tiles} tiles of {per_tile} visual tokens need {n_tiles * per_tile}"
        advice = (
            f"Prepare the prompt with this model's own processor: its image_seq_length must be "
            f"{self.config.image_seq_length} (compress_ratio {self.config.compress_ratio})."
        )
        torch_compilable_check(
            mask.sum() == n_tiles * per_tile,
            lambda: f"The prompt has {int(mask.sum())} image placeholders, but {needs}. {advice}",
        )
        if n_tiles > 1 and per_tile == self.config.image_seq_length:  # not a slice of a chunked prefill
            torch_compilable_check(
                (mask.sum(-1) % per_tile == 0).all(),
                lambda: (
                    f"The prompts have {mask.sum(-1).tolist()} image placeholders; each must be a multiple of the "
                    f"{per_tile} visual tokens of a tile. {advice}"
                ),
            )
        return mask.unsqueeze(-1)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run InternVL's forward with the configured positions. See `FCoTVLForConditionalGeneration.forward`."""
        has_images = pixel_values is not None or (mm_encoder_outputs or {}).get("image") is not None
        decoding = torch.compiler.is_compiling() or not _is_empty(
            past_key_values
        )  # only decode steps are compiled
        if not has_images and input_ids is not None and not decoding:
            n_placeholders = (input_ids == self.config.image_token_id).sum()
            torch_compilable_check(
                n_placeholders == 0,
                lambda: f"The prompt has {int(n_placeholders)} image placeholders, but no image was given.",
            )
        if self.config.keeps_positions:
            position_ids, attention_mask = self._kept_positions(
                input_ids, attention_mask, position_ids, past_key_values
            )
        return super().forward(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )

    def _kept_positions(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        past_key_values: Cache | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return position ids and attention mask for kept positions, computing those that the caller did not pass."""
        if position_ids is None:
            if input_ids is None or not _is_empty(past_key_values):
                raise ValueError(
                    'visual_positions="kept" needs the input_ids of the whole sequence to number its tokens; with '
                    "inputs_embeds or a filled cache pass position_ids as well (see visual_position_ids)."
                )
            if attention_mask is not None and attention_mask.ndim != 2:
                raise ValueError(
                    'visual_positions="kept" needs a [batch, length] attention_mask, or position_ids.'
                )
            position_ids = self.visual_position_ids(input_ids, attention_mask)
        if attention_mask is None and past_key_values is None:
            attention_mask = self._packing_mask(position_ids)
        return position_ids, attention_mask

    def _packing_mask(self, position_ids: Tensor) -> Tensor | None:
        """Return the causal mask of kept positions, `[batch, 1, length, length]`.

        If the row is not packed, return all ones `[batch, length]`.

        transformers interprets any position increment other than 1 as the boundary between two packed sequences, and
        masks across it. Kept positions have larger increments inside a sequence too; only positions that do not
        increase mark a boundary.
        """
        seams = position_ids.diff(dim=-1) <= 0
        if not bool(seams.any()):
            return torch.ones_like(position_ids)
        index = torch.arange(position_ids.shape[-1], device=position_ids.device).expand_as(position_ids)
        starts = nn.functional.pad(torch.where(seams, index[:, 1:], 0), (1, 0)).cummax(-1).values
        return create_causal_mask(
            config=self.config.text_config,
            inputs_embeds=torch.empty(*position_ids.shape, 0, dtype=self.dtype, device=position_ids.device),
            attention_mask=None,
            past_key_values=None,
            position_ids=index - starts,
        )


class FCoTVLForConditionalGeneration(StudentModel, InternVLForConditionalGeneration):
    """Student with its language-model head; supports `generate()`, `from_pretrained()` and pipelines."""

    config: FCoTVLConfig
    config_class: ClassVar[Any] = FCoTVLConfig
    body: ClassVar[Any] = FCoTVLModel

    def get_visual_features(self, pixel_values: Tensor) -> Tensor:
        """See `FCoTVLModel.get_visual_features`."""
        return self.model.get_visual_features(pixel_values)

    def visual_position_ids(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """See `FCoTVLModel.visual_position_ids`."""
        return self.model.visual_position_ids(input_ids, attention_mask)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        visual_features: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run InternVL's forward; `visual_features` replaces `pixel_values` and skips the ViT.

        Args:
            input_ids: `[batch, length]` with `image_seq_length` placeholders per tile.
            pixel_values: `[n_tiles, 3, height, width]` over the whole batch, in the order of the placeholders.
            visual_features: `[n_tiles, tokens_per_tile, visual_channels]`, from `get_visual_features`.
            labels: `[batch, length]`, -100 where there is no loss.

        Raises:
            ValueError: If placeholders and tiles do not match, or images are passed in two forms at once.
        """
        if visual_features is not None:
            mm_encoder_outputs = self._features_to_encoder_outputs(
                visual_features, pixel_values, mm_encoder_outputs
            )
        return super().forward(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            logits_to_keep=logits_to_keep,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )

    def _features_to_encoder_outputs(
        self, visual_features: Tensor, pixel_values: Tensor | None, mm_encoder_outputs: dict[str, Any] | None
    ) -> dict[str, BaseModelOutputWithPooling]:
        if pixel_values is not None or mm_encoder_outputs:
            raise ValueError("Pass images once: pixel_values, visual_features or mm_encoder_outputs.")
        return self.model.adapt_visual_features(visual_features)

    def _maybe_prepare_encoder_kwargs_for_generation(
        self, inputs_tensor: Tensor, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        # generate() encodes images once, before it repeats prompts for beams; cached features enter here.
        if (visual_features := model_kwargs.pop("visual_features", None)) is not None:
            model_kwargs["mm_encoder_outputs"] = self._features_to_encoder_outputs(
                visual_features, model_kwargs.get("pixel_values"), model_kwargs.get("mm_encoder_outputs")
            )
        return super()._maybe_prepare_encoder_kwargs_for_generation(
            inputs_tensor, model_kwargs, *args, **kwargs
        )

    def _prepare_position_ids_for_generation(
        self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]
    ) -> Tensor:
        # Called once per generate(). Afterwards transformers appends last + 1 for each new token, which is right for
        # both schemes because new tokens are text. No state is kept between calls.
        if not self.config.keeps_positions:
            return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)
        input_ids = model_kwargs.get("input_ids")
        if input_ids is None or input_ids.shape[1] == 0:
            input_ids = inputs_tensor
        attention_mask = model_kwargs.get("attention_mask")
        cache = model_kwargs.get("past_key_values")
        seen = cache.get_seq_length() if cache is not None else 0
        whole = attention_mask is None or attention_mask.shape == input_ids.shape
        if input_ids.is_floating_point() or not whole or seen >= input_ids.shape[1]:
            raise ValueError(
                'visual_positions="kept" needs the input_ids of the whole sequence, also when generation continues '
                "from a cache; pass them, or position_ids (see visual_position_ids)."
            )
        return self.visual_position_ids(input_ids, attention_mask)


__all__ = ["FCoTVLForConditionalGeneration", "FCoTVLModel", "StudentAdaptor"]
