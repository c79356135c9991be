"""The guest that drops visual tokens at decoder layers, shared by every training-free peer.

Stands inside a running Hugging Face InternVL or LLaVA as removable hooks, between the embedding and the decoder's
layers: layers below a drop see the sequence as it was, the layer of the drop and those above see it without the
dropped visual tokens, in prefill and in every decode step. Most peers drop once, some at several layers. Kept tokens
keep their order and their position ids; a peer may also rewrite them (a token that others were merged into). Layers
from a drop on cache only the kept keys, so the KV cache shrinks for real and later steps get masks of the right
length.

Rows of a batch may differ in length, padding and number of visual tokens: kept tokens are moved to the right
end of the row, and the shorter rows are filled up on the left with masked entries. A prefill's output is as
short as its longest row; the last position is every row's last token, which is what `generate()` reads.

Shapes: B rows, L tokens of the padded prompt, S tokens left after dropping (longest row), Q new tokens of one
call, K keys in the layers of one drop, C channels.
"""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

Call = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments of a module's forward
Drop = tuple[int, float]  # a decoder layer, and the share of the picture's tokens it and those above work on


@dataclass(frozen=True)
class Prompt:
    """What a peer may look at when it chooses: the tokens of one prefill.

    image_BL: which tokens are visual. valid_BL: which are not padding. input_ids_BL: as given.
    pixel_values: tiles of all rows [n_tiles, 3, h, w], or None when features were handed in ready. hidden_BLC: what
    the layer of the drop is given; at layer 0 the visual features behind the projector and the text's embeddings.

    At a second drop, all of it is what the first one left.
    """

    image_BL: Tensor
    valid_BL: Tensor
    input_ids_BL: Tensor
    pixel_values: Tensor | None
    hidden_BLC: Tensor | None = None

    def counts(self) -> list[int]:
        """Visual tokens of every row."""
        counts: list[int] = self.image_BL.sum(dim=1).tolist()
        return counts


@dataclass(frozen=True)
class Choice:
    """What a peer that merges tokens chose.

    kept_BL: the visual tokens to keep. hidden_BLC: the prompt's hidden states, rewritten where others were merged
    into a kept token. size_BL: how many tokens each stands for, if attention is to count it that often (its logit
    is raised by the logarithm), or None.
    """

    kept_BL: Tensor
    hidden_BLC: Tensor
    size_BL: Tensor | None = None


Select = Callable[[Prompt], Tensor | Choice]  # a tensor is bool [B, L]: the visual tokens to keep


# ----------------------------------------------------------------------------------------------------- budgets


def n_kept(keep: float, n_tokens: int) -> int:
    """Visual tokens left of `n_tokens`: rounded to the nearest, half up, at least one."""
    return min(n_tokens, max(1, int(keep * n_tokens + 0.5)))


def layer_mean_keep(keep: float, layer: int, n_layers: int) -> float:
    """Share of visual tokens the decoder works on, averaged over its layers, when they are dropped at `layer`.

    Dropping 50% at layer 2 of 24 still works on 54%; a compressed model's 50% holds at every layer.
    """
    return (layer + (n_layers - layer) * keep) / n_layers


def shares_by_layer(drops: Sequence[Drop], n_layers: int) -> list[float]:
    """The share of visual tokens every decoder layer works on, from (layer, share from there on) of every drop."""
    starts = [0, *(layer for layer, _ in drops), n_layers]
    spans = [after - before for before, after in pairwise(starts)]
    shares = [1.0, *(share for _, share in drops)]
    return [share for share, span in zip(shares, spans, strict=True) for _ in range(span)]


def tokens_by_layer(drops: Sequence[Drop], n_layers: int, n_tokens: int) -> list[int]:
    """Visual tokens in every decoder layer, of a picture that has `n_tokens`."""
    return [n_kept(share, n_tokens) if n_tokens else 0 for share in shares_by_layer(drops, n_layers)]


def keep_for_layer_mean(mean: float, layer: int, n_layers: int) -> float:
    """The share to keep from `layer` on so that the average over all layers is `mean`.

    Raises ValueError when the layers below alone already cost the whole budget.
    """
    keep = (mean * n_layers - layer) / (n_layers - layer)
    if keep <= 1e-9:
        raise ValueError(
            f"a layer-mean budget of {mean:.0%} cannot be met by dropping at layer {layer} of {n_layers}: "
            f"the layers below it cost {layer / n_layers:.0%} already. Drop earlier or allow more."
        )
    return keep


# ------------------------------------------------------------------------------------------------ on and off


class PruneHandle:
    """An applied peer. `remove()` gives the model back as it was; also a context manager.

    method: the peer's name. keep: nominal share of visual tokens kept. layer: first decoder layer without the
    dropped ones. n_layers: layers of the decoder. drops: (layer, share of the picture's tokens from there on) of
    every drop, where there are several. kept, total: visual tokens of each row of the last prefill after the last
    drop and before the first; kept_at: after every drop.
    """

    def __init__(
        self, method: str, keep: float, layer: int, n_layers: int, drops: Sequence[Drop] = ()
    ) -> None:
        self.method, self.keep, self.layer, self.n_layers = method, keep, layer, n_layers
        self.drops = tuple(drops) or ((layer, keep),)
        self.kept_at: list[list[int]] = []
        self.total: list[int] = []
        self.hooks: list[torch.utils.hooks.RemovableHandle] = []

    @property
    def kept(self) -> list[int]:
        """Visual tokens of each row of the last prefill after the last drop."""
        return self.kept_at[-1] if self.kept_at else []

    @property
    def visual_by_layer_and_row(self) -> list[list[int]]:
        """Visual tokens of each row of the last prefill, in every decoder layer."""
        starts = [0, *(layer for layer, _ in self.drops), self.n_layers]
        spans = [after - before for before, after in pairwise(starts)]
        return [
            row for row, span in zip([self.total, *self.kept_at], spans, strict=True) for _ in range(span)
        ]

    @property
    def visual_by_layer(self) -> list[int]:
        """Visual tokens of the last prefill in every decoder layer, over all rows."""
        return [sum(row) for row in self.visual_by_layer_and_row]

    @property
    def layer_mean_keep(self) -> float:
        """The share of visual tokens the decoder works on, averaged over its layers."""
        return sum(shares_by_layer(self.drops, self.n_layers)) / self.n_layers

    def budget(self, share: float) -> list[int]:
        """Visual tokens that are a share of those of each row of the running prefill."""
        return [n_kept(share, n) if n else 0 for n in self.total]

    def remove(self) -> None:
        """Take every hook out again; safe to call twice."""
        for hook in self.hooks:
            hook.remove()
        self.hooks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def decoder_of(model: nn.Module) -> Any:
    """The decoder (embedding, layers, norm) of a Hugging Face InternVL, LLaVA or LLaVA-NeXT.

    Raises ValueError if the model is not laid out as one.
    """
    decoder = getattr(getattr(model, "model", None), "language_model", None)
    if not hasattr(decoder, "layers"):
        raise ValueError(
            f"{type(model).__name__} cannot be pruned: a Hugging Face InternVL or LLaVA is needed, "
            "with its decoder layers at model.language_model.layers."
        )
    return decoder


def install(model: Any, handle: PruneHandle, *selects: Select) -> None:
    """Put the guest in: from now on `selects`, one for each of `handle.drops`, decide at every prefill what stays.

    Raises ValueError for a share outside (0, 1], a layer outside the decoder, a decoder with sliding-window
    layers, an attention that is neither sdpa nor eager, or a model that is pruned already.
    """
    decoder = decoder_of(model)
    _check(decoder, handle)
    guest = _Guest(model, decoder, handle, selects)
    if (vision_tower := getattr(model.model, "vision_tower", None)) is not None:
        handle.hooks.append(vision_tower.register_forward_pre_hook(guest.see_tiles, with_kwargs=True))
    handle.hooks.append(model.model.register_forward_pre_hook(guest.see_prompt, with_kwargs=True))
    handle.hooks.append(decoder.register_forward_pre_hook(guest.enter_decoder, with_kwargs=True))
    for layer in decoder.layers[handle.drops[0][0] :]:
        handle.hooks.append(layer.register_forward_pre_hook(guest.enter_layer, with_kwargs=True))


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
    if "mrope_section" in (getattr(decoder.config, "rope_parameters", None) or {}):
        raise ValueError(
            "pruning needs positions of one dimension; Qwen-VL's decoder counts rows and columns of a picture."
        )
    kinds = set(getattr(decoder.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise ValueError(f"pruning needs full attention in every decoder layer, found {sorted(kinds)}.")
    for hook in decoder._forward_pre_hooks.values():
        if isinstance(getattr(hook, "__self__", None), _Guest):
            raise ValueError("the model is pruned already: call remove() on that handle first.")


# --------------------------------------------------------------------------------------------------- the guest


class _Stage:
    """One drop: what is chosen there, and what the layers up to the next drop need from prefill to the last step."""

    def __init__(self, first_layer: nn.Module, select: Select) -> None:
        self.first_layer, self.select = first_layer, select
        self.forget()

    def forget(self) -> None:
        self.active = False  # its layers are shorter than the whole sequence
        self.valid_BK: Tensor | None = None  # which of its keys are not filler
        self.bias_BK: Tensor | None = None  # what is added to the attention logits of a key, if anything
        self.forget_call()

    def forget_call(self) -> None:
        self.index_BS: Tensor | None = None  # of a running prefill: what stays of what the stage is given
        self.origin_BS: Tensor | None = None  # the same in the whole prompt
        self.hidden_BLC: Tensor | None = None  # of a running prefill: what the peer rewrote
        self.mask: Tensor | None = None
        self.positions: dict[str, Any] = {}


class _Guest:
    """The hooks and what they remember from prefill to the last decode step."""

    def __init__(self, model: Any, decoder: Any, handle: PruneHandle, selects: Sequence[Select]) -> None:
        self.handle = handle
        layers = [layer for layer, _ in handle.drops]
        self.stages = [
            _Stage(decoder.layers[layer], select) for layer, select in zip(layers, selects, strict=True)
        ]
        self.stage_of = {
            layer: stage
            for stage, (first, after) in zip(self.stages, pairwise([*layers, handle.n_layers]), strict=True)
            for layer in decoder.layers[first:after]
        }
        self.last_layer = decoder.layers[-1]
        self.image_token_id: int = model.config.image_token_id
        self.eager = decoder.config._attn_implementation == "eager"
        self.input_ids_BL: Tensor | None = None
        self.pixel_values: Tensor | None = None
        self.forget()

    def forget(self) -> None:
        self.prompt: Prompt | None = None  # of a running prefill, until the last drop is reached
        self.waiting: list[_Stage] = []  # of a running prefill: drops not reached yet
        self.origin_BS: Tensor | None = (
            None  # of a running prefill: where what is left stood in the whole prompt
        )
        self.n_seen = 0  # tokens the whole model has been given
        self.cache: weakref.ref[Any] | None = None  # the one the last prefill filled
        for stage in self.stages:
            stage.forget()

    # The hooks, in the order in which one forward meets them.

    def see_tiles(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Watched at the vision tower, because `generate()` encodes pictures before it calls the model.
        self.pixel_values = kwargs.get("pixel_values", args[0] if args else None)

    def see_prompt(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.input_ids_BL = kwargs.get("input_ids", args[0] if args else None)

    def enter_decoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        embeds_BQC, cache = kwargs["inputs_embeds"], kwargs.get("past_key_values")
        n_new = embeds_BQC.shape[1]
        if getattr(cache, "is_compileable", False):
            raise ValueError("pruning needs a growing KV cache, a static one reserves the dropped keys too.")
        new_valid_BQ = _new_valid(kwargs.get("attention_mask"), embeds_BQC)
        if cache is None or cache.get_seq_length() == 0:
            self.start(new_valid_BQ)
        elif any(stage.active for stage in self.stages):
            self.go_on(cache, kwargs.get("attention_mask"), new_valid_BQ)
        n_before = self.n_seen
        self.n_seen += n_new
        if self.handle.drops[0][0] > 0:
            return None
        self.drop(self.stages[0], embeds_BQC)
        if not self.stages[0].active:
            return None
        # No layer is left at full length, so the decoder's own mask and positions, which it would size by the
        # first layer's cache, are of no use. A four-dimensional mask passes through; layers get their own.
        kwargs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=embeds_BQC.device)
        if kwargs.get("position_ids") is None:
            kwargs["position_ids"] = torch.arange(n_before, self.n_seen, device=embeds_BQC.device)[None]
        return args, kwargs

    def enter_layer(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        hidden_BQC, stage = args[0], self.stage_of[module]
        if module is stage.first_layer:
            self.drop(stage, hidden_BQC)
            if stage.active:
                hidden_BQC = self.prepare_call(stage, hidden_BQC, kwargs)
        if not stage.active:
            return None
        kwargs |= stage.positions
        kwargs["attention_mask"] = stage.mask
        if module is self.last_layer:
            for done in self.stages:
                done.forget_call()
        return (hidden_BQC, *args[1:]), kwargs

    # What they do.

    def start(self, valid_BL: Tensor) -> None:
        self.forget()
        if self.input_ids_BL is None:
            raise ValueError("pruning finds visual tokens by their id: pass input_ids, not inputs_embeds.")
        input_ids_BL = self.input_ids_BL.to(valid_BL.device)
        image_BL = (input_ids_BL == self.image_token_id) & valid_BL
        prompt = Prompt(image_BL, valid_BL, input_ids_BL, self.pixel_values)
        self.pixel_values = None
        self.handle.total = prompt.counts()
        if any(self.handle.total):
            self.prompt, self.handle.kept_at, self.waiting = prompt, [], list(self.stages)
        else:
            self.handle.kept_at = [self.handle.total] * len(self.stages)

    def go_on(self, cache: Any, attention_mask: Tensor | None, new_valid_BQ: Tensor) -> None:
        n_tokens = self.n_seen + new_valid_BQ.shape[1]
        if self.cache is None or self.cache() is not cache:
            raise ValueError("this KV cache was not filled by the pruned model's last prefill.")
        if attention_mask is not None and attention_mask.shape[1] != n_tokens:
            raise ValueError(
                f"the attention mask covers {attention_mask.shape[1]} tokens, the pruned cache and the new "
                f"tokens stand for {n_tokens}: pass new tokens only and the mask of the whole text."
            )
        for stage in self.stages:
            if stage.valid_BK is not None:
                stage.valid_BK = torch.cat([stage.valid_BK, new_valid_BQ], dim=1)
            if stage.bias_BK is not None:
                stage.bias_BK = torch.cat(
                    [stage.bias_BK, torch.zeros_like(new_valid_BQ, dtype=torch.float)], 1
                )

    def drop(self, stage: _Stage, hidden_BLC: Tensor) -> None:
        """In a prefill, ask the peer and lay out the rows of the shortened sequence."""
        if not self.waiting or self.waiting[0] is not stage:
            return
        self.waiting.pop(0)
        assert self.prompt is not None
        prompt = self.prompt
        chosen = stage.select(replace(prompt, hidden_BLC=hidden_BLC))
        kept_BL = (chosen.kept_BL if isinstance(chosen, Choice) else chosen) & prompt.image_BL
        self.handle.kept_at.append(kept_BL.sum(dim=1).tolist())
        if self.origin_BS is not None or self.handle.kept != self.handle.total:
            self.shorten(stage, prompt, kept_BL, chosen if isinstance(chosen, Choice) else None)
        if not self.waiting:
            self.prompt = self.origin_BS = None

    def shorten(self, stage: _Stage, prompt: Prompt, kept_BL: Tensor, choice: Choice | None) -> None:
        stay_BL = kept_BL | (prompt.valid_BL & ~prompt.image_BL)
        n_longest = int(stay_BL.sum(dim=1).max())
        # A stable sort by "stays" moves what stays to the right end and keeps its order.
        index_BS = stay_BL.to(torch.uint8).argsort(dim=1, stable=True)[:, -n_longest:]
        stage.index_BS, stage.active = index_BS, True
        stage.valid_BK = stay_BL.gather(1, index_BS)
        stage.origin_BS = index_BS if self.origin_BS is None else self.origin_BS.gather(1, index_BS)
        if choice is not None:
            stage.hidden_BLC = choice.hidden_BLC
            if choice.size_BL is not None:
                stage.bias_BK = choice.size_BL.float().log().gather(1, index_BS)
        self.origin_BS = stage.origin_BS
        kept_BS, ids_BS = kept_BL.gather(1, index_BS), prompt.input_ids_BL.gather(1, index_BS)
        self.prompt = Prompt(kept_BS, stage.valid_BK, ids_BS, None)

    def prepare_call(self, stage: _Stage, hidden_BQC: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """At the layer that drops: the shortened hidden states, positions and mask of this call."""
        cache = kwargs.get("past_key_values")
        if stage.index_BS is not None:
            assert stage.origin_BS is not None
            self.cache = None if cache is None else weakref.ref(cache)
            n_rows = len(stage.index_BS)
            given_BLC = hidden_BQC if stage.hidden_BLC is None else stage.hidden_BLC.to(hidden_BQC.dtype)
            hidden_BQC = _take(given_BLC, stage.index_BS)
            rotary = kwargs["position_embeddings"]
            rotary = tuple(_take(part.expand(n_rows, -1, -1), stage.origin_BS) for part in rotary)
            stage.positions = {"position_embeddings": rotary}
            if (ids_BL := kwargs.get("position_ids")) is not None:
                stage.positions["position_ids"] = ids_BL.expand(n_rows, -1).gather(1, stage.origin_BS)
        assert stage.valid_BK is not None
        stage.mask = _causal_mask(stage.valid_BK, stage.bias_BK, hidden_BQC, self.eager)
        return hidden_BQC


def _new_valid(attention_mask: Any, embeds_BQC: Tensor) -> Tensor:
    n_rows, n_new = embeds_BQC.shape[:2]
    if attention_mask is None:
        return torch.ones(n_rows, n_new, dtype=torch.bool, device=embeds_BQC.device)
    if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2:
        raise ValueError("pruning needs an attention mask of shape [rows, tokens], or none.")
    return attention_mask[:, -n_new:].to(embeds_BQC.device, torch.bool)


def _causal_mask(valid_BK: Tensor, bias_BK: Tensor | None, hidden_BQC: Tensor, eager: bool) -> Tensor | None:
    """The mask of the shortened layers [B, 1, Q, K]: bool; additive for eager or a bias; None if none is needed."""
    n_new, n_keys = hidden_BQC.shape[1], valid_BK.shape[1]
    if not eager and bias_BK is None and n_new in (1, n_keys) and bool(valid_BK.all()):
        return None
    query_Q1 = torch.arange(n_keys - n_new, n_keys, device=valid_BK.device)[:, None]
    key_1K = torch.arange(n_keys, device=valid_BK.device)[None]
    # A filler looks at itself: its output goes nowhere, but a row without any key would not stay a number.
    allowed = ((key_1K <= query_Q1) & (valid_BK[:, None] | (key_1K == query_Q1)))[:, None]
    if not eager and bias_BK is None:
        return allowed
    added = torch.zeros_like(allowed, dtype=hidden_BQC.dtype)
    if bias_BK is not None:
        added = added + bias_BK[:, None, None].to(added.dtype)
    return added.masked_fill(~allowed, torch.finfo(hidden_BQC.dtype).min)


def _take(x_BLC: Tensor, index_BS: Tensor) -> Tensor:
    return x_BLC.gather(1, index_BS[:, :, None].expand(-1, -1, x_BLC.shape[-1]))


# ------------------------------------------------------------------------------------ what peers choose with


def keep_top(prompt: Prompt, score_BL: Tensor, keep: float) -> Tensor:
    """The `n_kept` best-scored visual tokens of every row, as a mask [B, L]; ties go to the earlier token."""
    return keep_counts(prompt, score_BL, [n_kept(keep, n) if n else 0 for n in prompt.counts()])


def keep_counts(prompt: Prompt, score_BL: Tensor, counts: Sequence[int]) -> Tensor:
    """As many of the best-scored visual tokens of every row as `counts` says, as a mask [B, L]."""
    score_BL = score_BL.masked_fill(~prompt.image_BL, -torch.inf)
    order_BL = score_BL.argsort(dim=1, descending=True, stable=True)
    rank_BL = order_BL.argsort(dim=1)
    wanted_B = torch.tensor(counts, device=rank_BL.device)
    return prompt.image_BL & (rank_BL < wanted_B[:, None])


def row_fingerprints(prompt: Prompt) -> list[int]:
    """One number below 2**32 per row, from its tokens and pixels alone: not from its batch or its padding."""
    counts = prompt.counts()
    tiles = prompt.pixel_values
    tokens_per_tile = sum(counts) // len(tiles) if tiles is not None and len(tiles) else 0
    fingerprints, first_tile = [], 0
    for ids_L, valid_L, count in zip(prompt.input_ids_BL, prompt.valid_BL, counts, strict=True):
        fingerprint = zlib.crc32(ids_L[valid_L].cpu().numpy().tobytes())
        if tiles is not None and tokens_per_tile:
            next_tile = first_tile + count // tokens_per_tile
            pixels = tiles[first_tile:next_tile].float().cpu().contiguous()
            fingerprint = zlib.crc32(pixels.numpy().tobytes(), fingerprint)
            first_tile = next_tile
        fingerprints.append(fingerprint)
    return fingerprints
