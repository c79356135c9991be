"""A loaded candidate and one measured run of it: pages in, seconds and counts of every part out.

All pages of a run are answered as one batch, padded on the left. Timestamps are recorded by hooks on the vision tower
and the projector, and by a stopping criterion that `generate` calls after every token. No measured tensor is read
during the run, so the host never waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from fcot_vl.bench.timers import Clock, Peak
from fcot_vl.data.dataset import Sample
from fcot_vl.data.tokenization import tokenize_question
from fcot_vl.inference.inputs import InputBuilder
from fcot_vl.models.flops import (
    cache_bytes,
    decode_weight_bytes,
    prefill_flops,
    projector_flops,
    vit_flops,
)
from fcot_vl.prune.budget import n_kept
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.hooks import decoder_of
from fcot_vl.prune.method import Method

PARTS = ("preprocess", "vit", "projector", "prefill", "ttft", "decode", "end_to_end")


@dataclass(frozen=True)
class Candidate:
    """A candidate of the benchmark: a model folder and the method to run it with.

    Attributes:
        name: Name shown in tables.
        model: Folder of the model.
        method: Token-dropping method applied at inference.
    """

    name: str
    model: str
    method: Method = field(default_factory=Method)


@dataclass(frozen=True)
class Measurement:
    """Result of one run.

    Attributes:
        seconds: Seconds of every part (see `PARTS`); "decode" is the time of one step.
        counts: Numbers of tokens, bytes and operations.
    """

    seconds: dict[str, float]
    counts: dict[str, float]


class LoadedCandidate:
    """A loaded candidate.

    Args:
        candidate: Candidate to load.
        load: Function that returns the model and the processor for the model folder of a candidate.
        loaded: Cache of loaded models by folder, shared between candidates.
    """

    def __init__(
        self,
        candidate: Candidate,
        load: Callable[[str], tuple[Any, Any]],
        loaded: dict[str, tuple[Any, Any]],
    ) -> None:
        self.candidate = candidate
        if candidate.model not in loaded:
            loaded[candidate.model] = _without_stop_tokens(*load(candidate.model))
        self.model, self.processor = loaded[candidate.model]
        self.projector_flops = projector_flops(self.model, n_tiles=1)
        self.weight_bytes = decode_weight_bytes(self.model)

    @torch.inference_mode()
    def measure(self, pages: Sequence[Sample], new_tokens: int) -> Measurement:
        """Answer `pages` as one batch, decoding `new_tokens` tokens for each page."""
        device = self.model.device
        handle = self.candidate.method.apply(self.model)
        peak, clock = Peak(device), Clock(device)
        hooks = self._timing_hooks(clock)
        try:
            clock.mark("begun")
            inputs = self._inputs(pages, handle)
            clock.mark("ready")
            output = self.model.generate(
                **inputs,
                max_new_tokens=new_tokens,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([_EveryToken(clock)]),
                return_dict_in_generate=True,
            )
            clock.mark("ended")
            clock.stop()
        finally:
            for hook in hooks:
                hook.remove()
            if handle is not None:
                handle.remove()
        seconds = {
            "preprocess": clock.seconds("begun", "ready"),
            "vit": clock.seconds("vit", "projector"),
            "projector": clock.seconds("projector", "projected"),
            "prefill": clock.seconds("projected", "first token"),
            "ttft": clock.seconds("ready", "first token"),
            "decode": clock.seconds("first token", "last token") / (new_tokens - 1),
            "end_to_end": clock.seconds("begun", "ended"),
        }
        counts = self._counts(inputs, handle, output.past_key_values, new_tokens)
        extra = peak.extra_bytes()
        return Measurement(seconds, counts if extra is None else counts | {"peak_extra_bytes": extra})

    def _inputs(self, pages: Sequence[Sample], handle: PruneHandle | None) -> dict[str, Tensor]:
        questions = [page.question for page in pages]
        prompts = [
            tokenize_question(text, page.question_images, self.processor)
            for text, page in zip(questions, pages, strict=True)
        ]
        builder = InputBuilder(
            self.processor, self.candidate.method, self.model.generation_config.pad_token_id
        )
        inputs = builder.batch(prompts, [page.question_images for page in pages], handle)
        return {key: value.to(self.model.device) for key, value in inputs.items()}

    def _timing_hooks(self, clock: Clock) -> list[Any]:
        def note(name: str) -> Callable[..., None]:
            return lambda *_: clock.mark(name)

        inner = self.model.model
        return [
            inner.vision_tower.register_forward_pre_hook(note("vit")),
            inner.multi_modal_projector.register_forward_pre_hook(note("projector")),
            inner.multi_modal_projector.register_forward_hook(note("projected")),
        ]

    def _counts(
        self, inputs: dict[str, Tensor], handle: PruneHandle | None, cache: Any, new_tokens: int
    ) -> dict[str, float]:
        config, n_layers = self.model.config, len(decoder_of(self.model).layers)
        text, valid_BL = config.text_config, inputs["attention_mask"].bool()
        image_BL = (inputs["input_ids"] == config.image_token_id) & valid_BL
        totals: list[int] = image_BL.sum(dim=1).tolist()
        words: list[int] = (valid_BL & ~image_BL).sum(dim=1).tolist()
        visual = [totals] * n_layers if handle is None else handle.visual_by_layer_and_row
        by_layer = [sum(row) for row in visual]
        nominal = by_layer[-1]
        if handle is not None and len(handle.drops) > 1:
            nominal = sum(n_kept(handle.keep, total) for total in totals)
        in_prefill = [[n + v for n, v in zip(words, row, strict=True)] for row in visual]
        itemsize = cache.layers[0].keys.element_size()
        # In each layer, rows are padded to the longest one. The last token is not cached because no token follows it.
        padded = [len(words) * (max(row) + new_tokens - 1) for row in in_prefill]
        held = sum(part.nbytes for slot in cache.layers for part in (slot.keys, slot.values))
        planned = cache_bytes(text, padded, itemsize)
        assert held == planned, f"the cache holds {held} bytes, its tokens predict {planned}"
        read = cache_bytes(text, [2 * sum(row) + len(row) * new_tokens for row in in_prefill], itemsize) / 2
        return {
            "tiles": len(inputs["pixel_values"]),
            "visual_tokens_nominal": nominal,
            "visual_tokens_layer_mean": sum(by_layer) / n_layers,
            "prompt_tokens": sum(words) + sum(totals),
            "kv_cache_bytes": held,
            "decode_bytes": self.weight_bytes + read,
            "flops_vit": vit_flops(config.vision_config, len(inputs["pixel_values"])),
            "flops_projector": len(inputs["pixel_values"]) * self.projector_flops,
            "flops_prefill": sum(prefill_flops(text, layers) for layers in zip(*in_prefill, strict=True)),
        }


class _EveryToken(StoppingCriteria):
    """Stopping criterion that never stops; records the timestamps of the first and the latest token."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.name = clock, "first token"

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self.clock.mark(self.name)
        self.name = "last token"
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _without_stop_tokens(model: Any, processor: Any) -> tuple[Any, Any]:
    model.generation_config.eos_token_id = None  # every candidate decodes the same number of tokens
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = 0
    return model, processor
