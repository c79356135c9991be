"""Every training-free baseline on every decoder against layers run by hand; each choice against naive formulas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from prune_case import (
    DECODERS,
    IMAGE,
    N_LAYERS,
    PER_TILE,
    RAGGED,
    batch_of,
    count_hooks,
    make_model,
    run,
    visual_counts,
)
from torch import Tensor

from fcot_vl.prune.budget import shares_by_layer, tokens_by_layer
from fcot_vl.prune.hooks import decoder_of
from fcot_vl.prune.method import Method
from fcot_vl.prune.pyramiddrop import pyramid_drops
from fcot_vl.prune.selection import Choice, PrefillTokens
from fcot_vl.prune.sparsevlm import recycled
from fcot_vl.prune.vit_attention import VitAttentionProbe

PEERS = {
    "fastv": Method("fastv", 0.4, 2),
    "random": Method("random", 0.4),
    "pyramiddrop": Method("pyramiddrop", 0.6),
    "sparsevlm": Method("sparsevlm", 0.6),
    **{
        name: Method(name, 0.4)
        for name in ("uniform", "divprune", "visionzip", "vispruner", "prumerge", "tome")
    },
}
USES_VIT = ("visionzip", "vispruner", "prumerge", "tome")
Chosen = tuple[
    Tensor, Tensor | None, Tensor | None
]  # of a row's visual tokens: kept, rewritten states, sizes


@contextmanager
def watched(model: Any) -> Iterator[list[tuple[PrefillTokens, Any]]]:
    """Record the input and the choice of the applied baseline, drop by drop."""
    pruning = next(iter(decoder_of(model)._forward_pre_hooks.values())).__self__
    asked: list[tuple[PrefillTokens, Any]] = []
    for point in pruning.points:

        def select(prompt: PrefillTokens, plain: Any = point.select) -> Any:
            asked.append((prompt, plain(prompt)))
            return asked[-1][1]

        point.select = select
    yield asked


def chosen_in_row(asked: tuple[PrefillTokens, Any], row: int) -> Chosen:
    prompt, answer = asked
    image = prompt.image_BL[row]
    if not isinstance(answer, Choice):
        return answer[row, image], None, None
    sizes = None if answer.size_BL is None else answer.size_BL[row, image]
    return answer.kept_BL[row, image], answer.hidden_BLC[row, image], sizes


@torch.no_grad()
def by_hand(model: Any, inputs: dict[str, Tensor], row: int, drops: dict[int, Chosen], new: Tensor) -> Tensor:
    """Next-token logits after the row's prompt and each of `new`: no batch, padding, cache or hooks.

    The whole text is recomputed in every layer; at the layers of `drops` tokens go, and those kept may be rewritten.
    """
    decoder = model.model.language_model
    ids = torch.cat([inputs["input_ids"][row][inputs["attention_mask"][row].bool()], new])
    image = (ids == IMAGE) & (
        torch.arange(len(ids)) < len(ids) - len(new)
    )  # a random model may say it itself
    hidden = decoder.embed_tokens(ids)[None]
    first = int((inputs["input_ids"][:row] == IMAGE).sum()) // PER_TILE
    tiles = inputs["pixel_values"][first : first + int(image.sum()) // PER_TILE]
    hidden[0, image] = model.get_image_features(tiles).pooler_output.flatten(0, 1)
    positions, bias = torch.arange(len(ids))[None], torch.zeros(len(ids))
    for number, block in enumerate(decoder.layers):
        if number in drops:
            kept, states, sizes = drops[number]
            if states is not None:
                hidden[0, image] = states
            if sizes is not None:
                bias[image] = sizes.log()
            stays = torch.ones(len(image), dtype=torch.bool)
            stays[image] = kept
            hidden, positions, bias, image = hidden[:, stays], positions[:, stays], bias[stays], image[stays]
        n = hidden.shape[1]
        mask = torch.full((1, 1, n, n), torch.finfo(torch.float32).min).triu(1) + bias
        rotary = decoder.rotary_emb(hidden, positions)
        hidden = block(hidden, attention_mask=mask, position_embeddings=rotary, position_ids=positions)
    return model.lm_head(decoder.norm(hidden))[0][-len(new) - 1 :]


@pytest.mark.parametrize("decoder", list(DECODERS))
@pytest.mark.parametrize("baseline", PEERS)
def test_a_batch_decodes_as_if_dropped_tokens_were_never_there(baseline: str, decoder: str) -> None:
    model, method, n_new = make_model(decoder), PEERS[baseline], 4
    drops = method.drops(N_LAYERS)
    with method.apply(model) as handle, watched(model) as asked:
        new, logits, filled = run(model, RAGGED, n_new)
    assert handle.total == visual_counts(RAGGED)
    by_layer = [tokens_by_layer(drops, N_LAYERS, n) for n in handle.total]
    assert handle.kept == [counts[-1] for counts in by_layer]
    assert handle.visual_by_layer == [sum(counts) for counts in zip(*by_layer, strict=True)]
    assert handle.layer_mean_keep == pytest.approx(sum(shares_by_layer(drops, N_LAYERS)) / N_LAYERS)
    n_text = (RAGGED["attention_mask"].sum(1) - torch.tensor(handle.total)).tolist()
    for number, held in enumerate(filled.layers):
        rows = [text + counts[number] for text, counts in zip(n_text, by_layer, strict=True)]
        whole = RAGGED["input_ids"].shape[1]
        assert held.keys.shape[2] == (max(rows) if number >= drops[0][0] else whole) + n_new - 1
    for row in range(3):
        chosen = {layer: chosen_in_row(a, row) for (layer, _), a in zip(drops, asked, strict=True)}
        expected = by_hand(model, RAGGED, row, chosen, new[row, :-1])
        torch.testing.assert_close(logits[row], expected, atol=3e-4, rtol=3e-4)


@pytest.mark.parametrize("baseline", PEERS)
def test_keeping_everything_is_bit_equal_and_remove_restores_exactly(baseline: str) -> None:
    model, method = make_model(), PEERS[baseline]
    _, plain, _ = run(model, RAGGED, 3)
    hooks = count_hooks(model)
    with Method(baseline, 1.0, method.layer).apply(model) as handle:
        _, whole, filled = run(model, RAGGED, 3)
    assert torch.equal(whole, plain)
    assert handle.kept == handle.total
    assert handle.layer_mean_keep == 1
    assert {layer.keys.shape[2] for layer in filled.layers} == {RAGGED["input_ids"].shape[1] + 2}
    with method.apply(model):
        _, once, _ = run(model, RAGGED, 3)
        _, again, _ = run(model, RAGGED, 3)
    assert torch.equal(once, again)
    assert not torch.equal(once, plain)
    assert torch.equal(run(model, RAGGED, 3)[1], plain)
    assert count_hooks(model) == hooks


@pytest.mark.parametrize("baseline", PEERS)
def test_a_row_does_not_depend_on_the_batch_around_it(baseline: str) -> None:
    model, pages = make_model(), ((1, 3, 4), (3, 2, 6))
    with PEERS[baseline].apply(model):
        _, together, _ = run(model, batch_of(*pages), 2)
        for row, page in enumerate(pages):
            torch.testing.assert_close(
                run(model, batch_of(page), 2)[1][0], together[row], atol=3e-4, rtol=3e-4
            )


@pytest.mark.parametrize("baseline", ["pyramiddrop", "sparsevlm", "tome"])
def test_eager_attention_gives_the_same(baseline: str) -> None:
    logits = []
    for attention in ("sdpa", "eager"):
        model = make_model("qwen2", attention)
        with PEERS[baseline].apply(model):
            logits.append(run(model, RAGGED, 3)[1])
    torch.testing.assert_close(*logits, atol=3e-4, rtol=3e-4)


@pytest.mark.parametrize("baseline", ["pyramiddrop", "tome"])
def test_right_padding_and_several_new_tokens_at_once(baseline: str) -> None:
    model, inputs = make_model(), batch_of((2, 3, 4), (1, 3, 2))
    valid = inputs["attention_mask"].bool()
    ids, mask = torch.zeros_like(inputs["input_ids"]), torch.zeros_like(inputs["attention_mask"])
    for row in range(2):
        n = int(valid[row].sum())
        ids[row, :n], mask[row, :n] = inputs["input_ids"][row][valid[row]], 1
    more = torch.tensor([[9, 11, 13], [8, 20, 30]])
    longer = torch.cat([inputs["attention_mask"], torch.ones(2, 3, dtype=torch.long)], 1)
    with torch.no_grad(), PEERS[baseline].apply(model), watched(model) as asked:
        places = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        out = model(**inputs, position_ids=places)
        right = model(input_ids=ids, attention_mask=mask, pixel_values=inputs["pixel_values"])
        torch.testing.assert_close(right.logits[:, -1], out.logits[:, -1], atol=3e-4, rtol=3e-4)
        asked.clear()
        out = model(**inputs, position_ids=places)
        out = model(
            input_ids=more,
            attention_mask=longer,
            position_ids=longer.cumsum(1)[:, -3:] - 1,
            past_key_values=out.past_key_values,
        )
    layers = [layer for layer, _ in PEERS[baseline].drops(N_LAYERS)]
    for row in range(2):
        chosen = {layer: chosen_in_row(a, row) for layer, a in zip(layers, asked, strict=True)}
        expected = by_hand(model, inputs, row, chosen, more[row])[1:]
        torch.testing.assert_close(out.logits[row], expected, atol=3e-4, rtol=3e-4)


def attention_maps(model: Any, layer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(maps [tiles, heads, patches, patches], queries, keys [tiles, patches, channels]) of a ViT layer, CLS first."""
    found: dict[str, Any] = {}
    hooks = [
        layer.register_forward_hook(lambda module, args, out: found.update(maps=out[1])),
        layer.q_proj.register_forward_hook(lambda module, args, out: found.update(queries=out)),
        layer.k_proj.register_forward_hook(lambda module, args, out: found.update(keys=out)),
    ]
    with torch.no_grad():
        model.get_image_features(RAGGED["pixel_values"])
    for hook in hooks:
        hook.remove()
    return found["maps"], found["queries"], found["keys"]


def patches_of(token: int) -> list[int]:
    return [8 * (2 * (token // 4) + a) + 2 * (token % 4) + b for a in (0, 1) for b in (0, 1)]


@pytest.mark.parametrize("feature_layer", [-1, -2, 1])
def test_the_vits_row_is_that_of_the_layer_the_projector_reads(
    feature_layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("qwen2", "eager")
    monkeypatch.setattr(model.config, "vision_feature_layer", feature_layer)
    tower, read = model.model.vision_tower, []
    projector = model.model.multi_modal_projector
    hook = projector.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    probe = VitAttentionProbe(model)
    hooks = [hook, *probe.hooks()]
    with torch.no_grad():
        model.get_image_features(RAGGED["pixel_values"])
        states = tower(pixel_values=RAGGED["pixel_values"], output_hidden_states=True).hidden_states
    for hook in hooks:
        hook.remove()
    number = next(n for n, layer in enumerate(tower.encoder.layer) if layer.attention is probe.attention)
    corner = states[number + 1][:, 1]  # what that layer made of the first patch
    torch.testing.assert_close(read[0][:, 0, : corner.shape[1]], corner)
    maps, _, keys = attention_maps(model, probe.attention)
    attention_TN, keys_TNd = probe.pop(6 * PER_TILE)
    cls, keys = maps[:, :, 0, 1:].mean(dim=1), keys[:, 1:].unflatten(-1, (2, -1)).mean(dim=2)
    for token in range(PER_TILE):
        torch.testing.assert_close(attention_TN[:, token], cls[:, patches_of(token)].sum(dim=1))
        torch.testing.assert_close(keys_TNd[:, token], keys[:, patches_of(token)].mean(dim=1))
    with pytest.raises(ValueError, match="needs pixel_values"):
        probe.pop(6 * PER_TILE)


def test_prumerge_takes_the_vits_heads_as_one() -> None:
    model = make_model("qwen2", "eager")
    probe = VitAttentionProbe(model, one_head=True)
    hooks = probe.hooks()
    _, queries, keys = attention_maps(model, probe.attention)
    for hook in hooks:
        hook.remove()
    attention_TN, keys_TNd = probe.pop(6 * PER_TILE)
    score_TP = (keys @ queries[:, 0, :, None])[..., 0] / queries.shape[-1] ** 0.5
    cls = score_TP.softmax(dim=-1)[:, 1:]
    for token in range(PER_TILE):
        torch.testing.assert_close(attention_TN[:, token], cls[:, patches_of(token)].sum(dim=1))
        torch.testing.assert_close(keys_TNd[:, token], keys[:, 1:][:, patches_of(token)].mean(dim=1))


def layer_maps(model: Any, inputs: dict[str, Tensor], layer: int) -> Tensor:
    """Eager attention of one decoder layer [B, heads, L, L] without any baseline."""
    with torch.no_grad():
        return model(**inputs, output_attentions=True).attentions[layer]


@pytest.mark.parametrize(("baseline", "ahead"), [("fastv", -1), ("pyramiddrop", 0), ("sparsevlm", -1)])
def test_decoder_baselines_rank_by_the_layer_of_their_paper(baseline: str, ahead: int) -> None:
    model, inputs = make_model("qwen2", "eager"), batch_of((3, 3, 12))
    method = PEERS[baseline]
    with method.apply(model), watched(model) as asked, torch.no_grad():
        model(**inputs)
    prompt, answer = asked[0]
    image = prompt.image_BL[0]
    maps = layer_maps(model, inputs, method.drops(N_LAYERS)[0][0] + ahead)[0].mean(dim=0)
    rows = maps[-1:]
    if baseline == "sparsevlm":
        embeds = model.model.language_model.embed_tokens(inputs["input_ids"][0])
        embeds[image] = model.get_image_features(inputs["pixel_values"]).pooler_output.flatten(0, 1)
        share = (embeds[image] @ embeds[-12:].T).softmax(dim=1).mean(dim=0)
        rows = maps[-12:][share > share.mean()]
    score = rows.mean(dim=0)[image]
    kept = answer.kept_BL[0, image] if isinstance(answer, Choice) else answer[0, image]
    n_best = int(kept.sum())
    if baseline == "sparsevlm":
        n_best -= recycled(int(image.sum()), n_best)[1]
    # The two ways to the score round differently: of those as good as the last one kept, either may be taken.
    last = score.sort(descending=True).values[n_best - 1]
    assert kept[score > last + 1e-6].all()
    assert int(kept[score > last - 1e-6].sum()) >= n_best
    if baseline != "sparsevlm":
        assert not kept[score < last - 1e-6].any()


def test_misuse_is_refused() -> None:
    model = make_model()
    hooks = count_hooks(model)
    for baseline in USES_VIT:
        with PEERS[baseline].apply(model), pytest.raises(ValueError, match="one beam"):
            model.generate(**RAGGED, max_new_tokens=2, num_beams=2)
    with pytest.raises(ValueError, match="25% already"):
        Method("sparsevlm", 0.25).apply(model)
    with pytest.raises(ValueError, match="three layers"):
        pyramid_drops(0.5, 3)
    with pytest.raises(ValueError, match="share"):
        Method("divprune", 1.5).apply(model)
    assert count_hooks(model) == hooks
