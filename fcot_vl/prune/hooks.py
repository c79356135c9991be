"""Hooks that drop visual tokens at decoder layers, shared by all training-free baselines.

The hooks are removable and run inside a Hugging Face InternVL or LLaVA, between the embedding and the decoder layers.
Layers below a drop process the full sequence. The layer of the drop and those above process it without the dropped
visual tokens, in prefill and in every decoding step. Most methods drop once, some at several layers. Kept tokens keep
their order and position ids. A method may also rewrite kept tokens (to merge others into them). Layers from a drop on
cache only the kept keys, so the KV cache really shrinks, and later steps get masks of the matching length.

Rows of a batch may differ in length, padding and number of visual tokens. Kept tokens are moved to the right end of the
row, and shorter rows are filled up on the left with masked entries. The output of a prefill is as long as its longest
row after dropping; its last position is the last token of every row, which is what `generate()` reads.

Shapes: B rows, L tokens of the padded prompt, S tokens left after dropping (longest row), Q new tokens of one call, K
keys in the layers of one drop, C channels.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.selection import Choice, PrefillTokens, Select

Call = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments of a module's forward


def decoder_of(model: nn.Module) -> Any:
    """Return the decoder (embedding, layers, norm) of a Hugging Face InternVL, LLaVA or LLaVA-NeXT.

    Raises:
        ValueError: If the model does not have this structure.
    """
    decoder = getattr(getattr(model, "model", None), "language_model", None)
    if not hasattr(decoder, "layers"):
        raise ValueError(
            f"{type(model).__name__} cannot be pruned: a Hugging Face InternVL or LLaVA is needed, "
            "with its decoder layers at model.language_model.layers."
        )
    return decoder


def install(model: Any, handle: PruneHandle, *selects: Select) -> None:
    """Register the hooks. `selects`, one for each of `handle.drops`, choose the kept tokens in every prefill.

    Raises:
        ValueError: If a share is outside (0, 1], a layer is outside the decoder, the decoder has sliding-window layers,
            the attention is neither sdpa nor eager, or the model is pruned already.
    """
    decoder = decoder_of(model)
    _check(decoder, handle)
    pruning = _PruningHooks(model, decoder, handle, selects)
    if (vision_tower := getattr(model.model, "vision_tower", None)) is not None:
        handle.hooks.append(
            vision_tower.register_forward_pre_hook(pruning.record_pixel_values, with_kwargs=True)
        )
    handle.hooks.append(model.model.register_forward_pre_hook(pruning.record_prompt, with_kwargs=True))
    handle.hooks.append(decoder.register_forward_pre_hook(pruning.enter_decoder, with_kwargs=True))
    for layer in decoder.layers[handle.drops[0][0] :]:
        handle.hooks.append(layer.register_forward_pre_hook(pruning.enter_layer, with_kwargs=True))


def refuse_two_dimensions(decoder: Any) -> None:
    """Refuse a decoder that no training-free baseline supports: one whose positions count rows and columns.

    Raises:
        ValueError: If it is one.
    """
    if "mrope_section" in (getattr(decoder.config, "rope_parameters", None) or {}):
        raise ValueError(
            "no training-free baseline works here: they need positions of one dimension, and Qwen-VL's decoder counts "
            "rows and columns of an image; leave out the method, or compress the model with `fcot-vl realign`."
        )


def _check(decoder: Any, handle: PruneHandle) -> None:
    if not 0 < handle.keep <= 1:
        raise ValueError(f"keep is a share of visual tokens, above 0 and at most 1, got {handle.keep}.")
    layers = [layer for layer, _ in handle.drops]
    if layers != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] < handle.n_layers:
        raise ValueError(
            f"layer must lie in 0..{handle.n_layers - 1} of this decoder, got {', '.join(map(str, layers))}."
        )
    attention = decoder.config._attn_implementation
    if attention not in ("sdpa", "eager"):
        raise ValueError(
            f"pruning works with sdpa or eager attention, this decoder uses {attention!r}: "
            "load the model with attn_implementation='sdpa'."
        )
    refuse_two_dimensions(decoder)
    kinds = set(getattr(decoder.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise ValueError(f"pruning needs full attention in every decoder layer, found {sorted(kinds)}.")
    for hook in decoder._forward_pre_hooks.values():
        if isinstance(getattr(hook, "__self__", None), _PruningHooks):
            raise ValueError("the model is pruned already: call remove() on that handle first.")


# --------------------------------------------------------------------------------------------------- the hooks


class _DropPoint:
    """One drop: its choice of tokens, and the state of the layers up to the next drop, from prefill to last step."""

    def __init__(self, first_layer: nn.Module, select: Select) -> None:
        self.first_layer, self.select = first_layer, select
        self.reset()

    def reset(self) -> None:
        self.active = False  # True if the sequence in its layers is shorter than the whole one
        self.valid_BK: Tensor | None = None  # mask of the keys that are not filler
        self.bias_BK: Tensor | None = None  # bias added to the attention logits of a key, if any
        self.reset_call()

    def reset_call(self) -> None:
        self.index_BS: Tensor | None = None  # during a prefill: kept tokens, as indices of the input
        self.origin_BS: Tensor | None = None  # the same tokens, as indices of the whole prompt
        self.hidden_BLC: Tensor | None = None  # during a prefill: hidden states that the method rewrote
        self.mask: Tensor | None = None
        self.positions: dict[str, Any] = {}


class _PruningHooks:
    """The hooks and their state from prefill to the last decoding step."""

    def __init__(self, model: Any, decoder: Any, handle: PruneHandle, selects: Sequence[Select]) -> None:
        self.handle = handle
        layers = [layer for layer, _ in handle.drops]
        self.points = [
            _DropPoint(decoder.layers[layer], select) for layer, select in zip(layers, selects, strict=True)
        ]
        self.point_of = {
            layer: point
            for point, (first, after) in zip(self.points, pairwise([*layers, handle.n_layers]), strict=True)
            for layer in decoder.layers[first:after]
        }
        self.last_layer = decoder.layers[-1]
        self.image_token_id: int = model.config.image_token_id
        self.eager = decoder.config._attn_implementation == "eager"
        self.input_ids_BL: Tensor | None = None
        self.pixel_values: Tensor | None = None
        self.reset()

    def reset(self) -> None:
        self.prefill: PrefillTokens | None = None  # during a prefill, until the last drop is reached
        self.waiting: list[_DropPoint] = []  # during a prefill: drops not reached yet
        self.origin_BS: Tensor | None = (
            None  # during a prefill: indices of the remaining tokens in the whole prompt
        )
        self.n_seen = 0  # number of tokens passed to the whole model
        self.cache: weakref.ref[Any] | None = None  # cache that the last prefill filled
        for point in self.points:
            point.reset()

    # The hooks, in the order in which a forward pass calls them.

    def record_pixel_values(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Read at the vision tower because `generate()` encodes images before it calls the model.
        self.pixel_values = kwargs.get("pixel_values", args[0] if args else None)

    def record_prompt(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.input_ids_BL = kwargs.get("input_ids", args[0] if args else None)

    def enter_decoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        embeds_BQC, cache = kwargs["inputs_embeds"], kwargs.get("past_key_values")
        n_new = embeds_BQC.shape[1]
        if getattr(cache, "is_compileable", False):
            raise ValueError(
                "pruning needs a growing KV cache; a static one also reserves memory for the dropped keys."
            )
        new_valid_BQ = _new_valid(kwargs.get("attention_mask"), embeds_BQC)
        if cache is None or cache.get_seq_length() == 0:
            self.start_prefill(new_valid_BQ)
        elif any(point.active for point in self.points):
            self.continue_decoding(cache, kwargs.get("attention_mask"), new_valid_BQ)
        n_before = self.n_seen
        self.n_seen += n_new
        if self.handle.drops[0][0] > 0:
            return None
        self.drop(self.points[0], embeds_BQC)
        if not self.points[0].active:
            return None
        # No layer has the full length, so the mask and positions that the decoder would size by the cache of its
        # first layer do not apply. A four-dimensional mask is passed through unchanged; layers get their own.
        kwargs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=embeds_BQC.device)
        if kwargs.get("position_ids") is None:
            kwargs["position_ids"] = torch.arange(n_before, self.n_seen, device=embeds_BQC.device)[None]
        return args, kwargs

    def enter_layer(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        hidden_BQC, point = args[0], self.point_of[module]
        if module is point.first_layer:
            self.drop(point, hidden_BQC)
            if point.active:
                hidden_BQC = self.prepare_call(point, hidden_BQC, kwargs)
        if not point.active:
            return None
        kwargs |= point.positions
        kwargs["attention_mask"] = point.mask
        if module is self.last_layer:
            for done in self.points:
                done.reset_call()
        return (hidden_BQC, *args[1:]), kwargs

    # Implementation of the hooks.

    def start_prefill(self, valid_BL: Tensor) -> None:
        self.reset()
        if self.input_ids_BL is None:
            raise ValueError("pruning finds visual tokens by their id: pass input_ids, not inputs_embeds.")
        input_ids_BL = self.input_ids_BL.to(valid_BL.device)
        image_BL = (input_ids_BL == self.image_token_id) & valid_BL
        prefill = PrefillTokens(image_BL, valid_BL, input_ids_BL, self.pixel_values)
        self.pixel_values = None
        self.handle.total = prefill.counts()
        if any(self.handle.total):
            self.prefill, self.handle.kept_at, self.waiting = prefill, [], list(self.points)
        else:
            self.handle.kept_at = [self.handle.total] * len(self.points)

    def continue_decoding(self, cache: Any, attention_mask: Tensor | None, new_valid_BQ: Tensor) -> None:
        n_tokens = self.n_seen + new_valid_BQ.shape[1]
        if self.cache is None or self.cache() is not cache:
            raise ValueError("this KV cache was not filled by the pruned model's last prefill.")
        if attention_mask is not None and attention_mask.shape[1] != n_tokens:
            raise ValueError(
                f"the attention mask covers {attention_mask.shape[1]} tokens, the pruned cache and the new "
                f"tokens stand for {n_tokens}: pass new tokens only and the mask of the whole text."
            )
        for point in self.points:
            if point.valid_BK is not None:
                point.valid_BK = torch.cat([point.valid_BK, new_valid_BQ], dim=1)
            if point.bias_BK is not None:
                point.bias_BK = torch.cat(
                    [point.bias_BK, torch.zeros_like(new_valid_BQ, dtype=torch.float)], 1
                )

    def drop(self, point: _DropPoint, hidden_BLC: Tensor) -> None:
        """In a prefill, call the method's selection and lay out the rows of the shortened sequence."""
        if not self.waiting or self.waiting[0] is not point:
            return
        self.waiting.pop(0)
        assert self.prefill is not None
        prefill = self.prefill
        chosen = point.select(replace(prefill, hidden_BLC=hidden_BLC))
        kept_BL = (chosen.kept_BL if isinstance(chosen, Choice) else chosen) & prefill.image_BL
        self.handle.kept_at.append(kept_BL.sum(dim=1).tolist())
        if self.origin_BS is not None or self.handle.kept != self.handle.total:
            self.shorten(point, prefill, kept_BL, chosen if isinstance(chosen, Choice) else None)
        if not self.waiting:
            self.prefill = self.origin_BS = None

    def shorten(
        self, point: _DropPoint, prefill: PrefillTokens, kept_BL: Tensor, choice: Choice | None
    ) -> None:
        stay_BL = kept_BL | (prefill.valid_BL & ~prefill.image_BL)
        n_longest = int(stay_BL.sum(dim=1).max())
        # A stable sort by `stay_BL` moves the kept tokens to the right end and preserves their order.
        index_BS = stay_BL.to(torch.uint8).argsort(dim=1, stable=True)[:, -n_longest:]
        point.index_BS, point.active = index_BS, True
        point.valid_BK = stay_BL.gather(1, index_BS)
        point.origin_BS = index_BS if self.origin_BS is None else self.origin_BS.gather(1, index_BS)
        if choice is not None:
            point.hidden_BLC = choice.hidden_BLC
            if choice.size_BL is not None:
                point.bias_BK = choice.size_BL.float().log().gather(1, index_BS)
        self.origin_BS = point.origin_BS
        kept_BS, ids_BS = kept_BL.gather(1, index_BS), prefill.input_ids_BL.gather(1, index_BS)
        self.prefill = PrefillTokens(kept_BS, point.valid_BK, ids_BS, None)

    def prepare_call(self, point: _DropPoint, hidden_BQC: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """At the layer of a drop, prepare the shortened hidden states, positions and mask of this call."""
        cache = kwargs.get("past_key_values")
        if point.index_BS is not None:
            assert point.origin_BS is not None
            self.cache = None if cache is None else weakref.ref(cache)
            n_rows = len(point.index_BS)
            given_BLC = hidden_BQC if point.hidden_BLC is None else point.hidden_BLC.to(hidden_BQC.dtype)
            hidden_BQC = _take(given_BLC, point.index_BS)
            rotary = kwargs["position_embeddings"]
            rotary = tuple(_take(part.expand(n_rows, -1, -1), point.origin_BS) for part in rotary)
            point.positions = {"position_embeddings": rotary}
            if (ids_BL := kwargs.get("position_ids")) is not None:
                point.positions["position_ids"] = ids_BL.expand(n_rows, -1).gather(1, point.origin_BS)
        assert point.valid_BK is not None
        point.mask = _causal_mask(point.valid_BK, point.bias_BK, hidden_BQC, self.eager)
        return hidden_BQC


def _new_valid(attention_mask: Any, embeds_BQC: Tensor) -> Tensor:
    n_rows, n_new = embeds_BQC.shape[:2]
    if attention_mask is None:
        return torch.ones(n_rows, n_new, dtype=torch.bool, device=embeds_BQC.device)
    if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2:
        raise ValueError("pruning needs an attention mask of shape [rows, tokens], or none.")
    return attention_mask[:, -n_new:].to(embeds_BQC.device, torch.bool)


def _causal_mask(valid_BK: Tensor, bias_BK: Tensor | None, hidden_BQC: Tensor, eager: bool) -> Tensor | None:
    """Build the mask [B, 1, Q, K] of the shortened layers.

    The mask is bool, or additive for eager attention or with a bias, or None if no mask is needed.
    """
    n_new, n_keys = hidden_BQC.shape[1], valid_BK.shape[1]
    if not eager and bias_BK is None and n_new in (1, n_keys) and bool(valid_BK.all()):
        return None
    query_Q1 = torch.arange(n_keys - n_new, n_keys, device=valid_BK.device)[:, None]
    key_1K = torch.arange(n_keys, device=valid_BK.device)[None]
    # A filler attends to itself: its output is never used, but a row without any key would become NaN.
    allowed = ((key_1K <= query_Q1) & (valid_BK[:, None] | (key_1K == query_Q1)))[:, None]
    if not eager and bias_BK is None:
        return allowed
    added = torch.zeros_like(allowed, dtype=hidden_BQC.dtype)
    if bias_BK is not None:
        added = added + bias_BK[:, None, None].to(added.dtype)
    return added.masked_fill(~allowed, torch.finfo(hidden_BQC.dtype).min)


def _take(x_BLC: Tensor, index_BS: Tensor) -> Tensor:
    return x_BLC.gather(1, index_BS[:, :, None].expand(-1, -1, x_BLC.shape[-1]))
