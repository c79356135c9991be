"""Pruning against a naive reference: layers run by hand on a sequence from which the tokens were taken out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from prune_case import (
    DECODERS,
    IMAGE,
    N_LAYERS,
    PAD,
    PER_TILE,
    RAGGED,
    SIZES,
    batch_of,
    count_hooks,
    make_model,
    naive_row,
    prompt_ids,
    run,
    visual_counts,
)
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from fcot_vl.prune import random_drop
from fcot_vl.prune.budget import keep_for_layer_mean, layer_mean_keep, n_kept
from fcot_vl.prune.fastv import apply_fastv
from fcot_vl.prune.method import METHODS, Method
from fcot_vl.prune.random_drop import apply_random
from fcot_vl.prune.selection import PrefillTokens, keep_top
from fcot_vl.prune.uniform import apply_uniform


@torch.no_grad()
def eager_scores(inputs: dict[str, Tensor], row: int, layer: int, decoder: str) -> Tensor:
    """Attention of the row's last token at `layer`, mean over heads, from a model with eager attention maps."""
    model = make_model(decoder, "eager")
    valid = inputs["attention_mask"][row].bool()
    first = int((inputs["input_ids"][:row] == IMAGE).sum()) // PER_TILE
    ids = inputs["input_ids"][row][valid]
    n_tiles = int((ids == IMAGE).sum()) // PER_TILE
    out = model(
        input_ids=ids[None],
        pixel_values=inputs["pixel_values"][first : first + n_tiles],
        output_attentions=True,
    )
    return out.attentions[layer][0, :, -1].mean(dim=0)[ids == IMAGE]


def top_mask(scores: Tensor, keep: float) -> Tensor:
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.topk(n_kept(keep, len(scores))).indices] = True
    return kept


@pytest.mark.parametrize("decoder", list(DECODERS))
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("layer", "keep"), [(1, 0.5), (2, 0.25), (3, 0.01)])
def test_fastv_ranks_as_eager_maps_do_and_decodes_as_if_tokens_were_never_there(
    decoder: str, attention: str, layer: int, keep: float
) -> None:
    model = make_model(decoder, attention)
    with apply_fastv(model, keep, layer) as handle:
        new, logits, _ = run(model, RAGGED)
    assert handle.total == visual_counts(RAGGED)
    assert handle.kept == [n_kept(keep, n) for n in handle.total]
    for row in range(3):
        kept = top_mask(eager_scores(RAGGED, row, layer - 1, decoder), keep)
        expected = naive_row(model, RAGGED, row, kept, layer, new[row, :-1])
        torch.testing.assert_close(logits[row], expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("decoder", list(DECODERS))
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_uniform_before_the_first_layer_equals_the_naive_run(decoder: str, attention: str) -> None:
    model = make_model(decoder, attention)
    with apply_uniform(model, 0.25) as handle:
        new, logits, _ = run(model, RAGGED)
    assert handle.kept == [4, 12, 8]
    for row, n_tokens in enumerate(visual_counts(RAGGED)):
        kept = torch.arange(n_tokens) % 4 == 2
        expected = naive_row(model, RAGGED, row, kept, 0, new[row, :-1])
        torch.testing.assert_close(logits[row], expected, atol=2e-4, rtol=2e-4)


def test_the_naive_reference_itself_equals_the_unpruned_model() -> None:
    model = make_model()
    new, logits, _ = run(model, RAGGED)
    for row, n_tokens in enumerate(visual_counts(RAGGED)):
        expected = naive_row(model, RAGGED, row, torch.ones(n_tokens, dtype=torch.bool), 0, new[row, :-1])
        torch.testing.assert_close(logits[row], expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("layer", [0, 2])
def test_without_generate_position_ids_and_mask_may_be_left_out(layer: int) -> None:
    model = make_model()
    inputs = batch_of((2, 3, 4))
    step = torch.tensor([[9], [11], [13]])
    handle = apply_uniform(model, 0.5) if layer == 0 else apply_fastv(model, 0.5, layer)
    with torch.no_grad(), handle:
        out = model(inputs["input_ids"], pixel_values=inputs["pixel_values"], use_cache=True)
        logits = [out.logits[0, -1]]
        for token in step:
            out = model(input_ids=token[None], past_key_values=out.past_key_values, use_cache=True)
            logits.append(out.logits[0, -1])
    kept = torch.arange(32) % 2 == 1 if layer == 0 else top_mask(eager_scores(inputs, 0, 1, "qwen2"), 0.5)
    expected = naive_row(model, inputs, 0, kept, layer, step.flatten())
    torch.testing.assert_close(torch.stack(logits), expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("layer", [0, 2])
def test_several_new_tokens_at_once_on_a_pruned_cache(layer: int) -> None:
    model = make_model()
    inputs = batch_of((2, 3, 4), (1, 3, 2))
    more = torch.tensor([[9, 11, 13], [8, 20, 30]])
    handle = apply_uniform(model, 0.5) if layer == 0 else apply_fastv(model, 0.5, layer)
    with torch.no_grad(), handle:
        out = model(**inputs, position_ids=(inputs["attention_mask"].cumsum(1) - 1).clamp(min=0))
        mask = torch.cat([inputs["attention_mask"], torch.ones(2, 3, dtype=torch.long)], 1)
        out = model(
            input_ids=more,
            attention_mask=mask,
            position_ids=mask.cumsum(1)[:, -3:] - 1,
            past_key_values=out.past_key_values,
        )
    for row, n_tokens in enumerate(visual_counts(inputs)):
        if layer == 0:
            kept = torch.arange(n_tokens) % 2 == 1
        else:
            kept = top_mask(eager_scores(inputs, row, 1, "qwen2"), 0.5)
        expected = naive_row(model, inputs, row, kept, layer, more[row])[1:]
        torch.testing.assert_close(out.logits[row], expected, atol=2e-4, rtol=2e-4)


PEERS = {
    "fastv": lambda model, keep: apply_fastv(model, keep, 2),
    "random": apply_random,
    "uniform": apply_uniform,
}


@pytest.mark.parametrize("peer", PEERS)
def test_keeping_everything_is_bit_equal_and_remove_restores_exactly(peer: str) -> None:
    model = make_model()
    new, logits, _ = run(model, RAGGED)
    hooks_before = count_hooks(model)
    with PEERS[peer](model, 1.0) as handle:
        _, kept_logits, filled = run(model, RAGGED)
        assert handle.layer_mean_keep == 1.0
        assert handle.kept == handle.total == visual_counts(RAGGED)
        assert {layer.keys.shape[2] for layer in filled.layers} == {RAGGED["input_ids"].shape[1] + 5}
    assert torch.equal(kept_logits, logits)
    handle = PEERS[peer](model, 0.5)
    assert not torch.equal(run(model, RAGGED)[1], logits)
    handle.remove()
    handle.remove()
    back_new, back_logits, _ = run(model, RAGGED)
    assert torch.equal(back_logits, logits)
    assert torch.equal(back_new, new)
    assert count_hooks(model) == hooks_before


@pytest.mark.parametrize(("peer", "layer"), [("fastv", 2), ("random", 0), ("uniform", 0)])
@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_cache_bytes_are_what_the_kept_tokens_predict(peer: str, layer: int, keep: float) -> None:
    model = make_model()
    inputs = batch_of((3, 4, 5))
    n_visual, n_new = 3 * PER_TILE, 6
    with PEERS[peer](model, keep):
        _, _, filled = run(model, inputs, n_new)
    width = SIZES["num_key_value_heads"] * (SIZES["hidden_size"] // SIZES["num_attention_heads"])
    for number, held in enumerate(filled.layers):
        visual = n_kept(keep, n_visual) if number >= layer else n_visual
        tokens = 9 + visual + n_new - 1
        assert held.keys.nbytes == held.values.nbytes == tokens * width * 4


def test_rows_do_not_depend_on_the_batch_around_them() -> None:
    model = make_model()
    alone = batch_of((1, 3, 4))
    for apply in PEERS.values():
        with apply(model, 0.5):
            torch.testing.assert_close(
                run(model, RAGGED)[1][0], run(model, alone)[1][0], atol=2e-4, rtol=2e-4
            )


def test_a_second_prompt_starts_afresh_and_text_alone_passes_untouched() -> None:
    model = make_model()
    text = {"input_ids": torch.tensor([[8, 9, 10, 11]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    plain = run(model, text)[1]
    other = batch_of((2, 4, 4), seed=5)
    with apply_fastv(model, 0.5, 1):
        first = run(model, RAGGED)[1]
        assert torch.equal(run(model, text)[1], plain)
        run(model, other)
        assert torch.equal(run(model, RAGGED)[1], first)


def test_random_is_seeded_and_differs_between_pages_and_seeds() -> None:
    model = make_model()
    pages = batch_of((2, 3, 4), (2, 3, 4))
    pages["pixel_values"][2:] += 1  # the same question about another page
    chosen: list[Tensor] = []
    plain_keep_top = random_drop.keep_top

    def watched(*args: Any) -> Tensor:
        chosen.append(plain_keep_top(*args))
        return chosen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_drop, "keep_top", watched)
        for seed in (0, 0, 1):
            with apply_random(model, 0.5, seed=seed) as handle:
                run(model, pages)
                assert handle.kept == [16, 16]
    first, again, other_seed = chosen
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, other_seed)


def test_random_keeps_every_token_about_equally_often() -> None:
    ids = torch.tensor([prompt_ids(1, 2, 2, seed=s) for s in range(400)])
    prompt = PrefillTokens(ids == IMAGE, torch.ones_like(ids, dtype=torch.bool), ids, None)
    model = make_model()
    handle = apply_random(model, 0.25, seed=3)
    hooks = next(iter(model.model.language_model._forward_pre_hooks.values())).__self__
    often = hooks.points[0].select(prompt)[:, 2:18].float().mean(0)
    handle.remove()
    assert float(often.sum()) == pytest.approx(4)
    assert float((often - 0.25).abs().max()) < 4 * math.sqrt(0.25 * 0.75 / 400)


def test_right_padding_keeps_every_rows_own_text() -> None:
    model = make_model()
    left = RAGGED
    valid = left["attention_mask"].bool()
    ids, mask = torch.full_like(left["input_ids"], PAD), torch.zeros_like(left["attention_mask"])
    for row in range(3):
        n = int(valid[row].sum())
        ids[row, :n], mask[row, :n] = left["input_ids"][row][valid[row]], 1
    right = {"input_ids": ids, "attention_mask": mask, "pixel_values": left["pixel_values"]}
    with torch.no_grad(), apply_fastv(model, 0.5, 2):
        from_left = model(**left, position_ids=(left["attention_mask"].cumsum(1) - 1).clamp(min=0))
        from_right = model(**right)
    torch.testing.assert_close(from_right.logits[:, -1], from_left.logits[:, -1], atol=2e-4, rtol=2e-4)


def test_every_method_at_an_equal_layer_mean() -> None:
    """At 4 and 24 layers each method that can costs what was asked, and the nominal share of early ones is the mean."""
    for depth, share in ((4, 0.5), (24, 0.5), (24, 0.3)):
        for name in METHODS[1:]:
            method = Method(name, 0.9, 1 if name == "fastv" else None)
            assert method.at_layer_mean(share, depth).layer_mean(depth) == pytest.approx(share, abs=0.03), (
                name
            )
    fastv = Method("fastv", 0.25, 2)
    assert fastv.layer_mean(24) == pytest.approx((2 + 22 * 0.25) / 24)
    assert Method("pyramiddrop", 0.5).layer_mean(4) == pytest.approx((1 + 0.5 + 0.25 + 0.125) / 4)
    assert Method("pyramiddrop", 0.5).at_layer_mean(0.5, 4).keep == pytest.approx(0.5437, abs=1e-4)
    for method in (Method("fastv", 0.5, 1), Method("pyramiddrop", 0.5), Method("sparsevlm", 0.5)):
        with pytest.raises(ValueError):
            method.at_layer_mean(0.2, 4)


def test_budgets() -> None:
    assert layer_mean_keep(0.5, 2, 24) == pytest.approx(13 / 24)  # the 54% of FastV's own setting
    assert layer_mean_keep(0.5, 0, 24) == 0.5
    assert Method("fastv", 0.5, 1).at_layer_mean(0.5, 4).keep == pytest.approx(1 / 3)
    for mean in (0.3, 0.5, 0.75):
        assert layer_mean_keep(keep_for_layer_mean(mean, 2, 24), 2, 24) == pytest.approx(mean)
    with pytest.raises(ValueError, match="cannot be met"):
        Method("fastv", 0.5, 1).at_layer_mean(0.25, 4)
    assert [n_kept(0.5, n) for n in (1, 2, 3, 64)] == [1, 1, 2, 32]
    assert n_kept(0.001, 64) == 1
    assert n_kept(1.0, 64) == 64


def test_ties_go_to_the_earlier_token() -> None:
    ids = torch.tensor([[8, IMAGE, IMAGE, IMAGE, IMAGE, 9]])
    prompt = PrefillTokens(ids == IMAGE, torch.ones_like(ids, dtype=torch.bool), ids, None)
    scores = torch.tensor([[9.0, 1.0, 2.0, 1.0, 2.0, 9.0]])
    assert keep_top(prompt, scores, 0.75)[0].tolist() == [False, True, True, False, True, False]


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda m: apply_fastv(m, 0.5, 0), "at least 1"),
        (lambda m: apply_fastv(m, 0.5, N_LAYERS), "1..3"),
        (lambda m: apply_uniform(m, 0.0), "share"),
        (lambda m: apply_random(m, 1.5), "share"),
        (lambda m: apply_uniform(m.model.vision_tower, 0.5), "Hugging Face InternVL"),
    ],
)
def test_wrong_settings_are_refused(apply: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply(make_model())


def test_misuse_is_refused() -> None:
    model = make_model()
    inputs = batch_of((1, 3, 4))
    with torch.no_grad(), apply_uniform(model, 0.5):
        with pytest.raises(ValueError, match="pruned already"):
            apply_fastv(model, 0.5, 2)
        with pytest.raises(ValueError, match="input_ids"):
            model(inputs_embeds=torch.zeros(1, 4, 32))
        with pytest.raises(ValueError, match="static"):
            model.generate(**inputs, max_new_tokens=2, cache_implementation="static")
        stranger = model(**inputs).past_key_values
        model(**inputs)
        with pytest.raises(ValueError, match="last prefill"):
            model(input_ids=torch.tensor([[9]]), past_key_values=stranger)
    apply_fastv(model, 0.5, 2).remove()  # a removed guest does not block the next


def test_rotation_equals_transformers() -> None:
    from fcot_vl.prune.decoder_attention import rotate

    x, angle = torch.randn(1, 2, 5, 8), torch.randn(1, 5, 4)
    cos, sin = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()
    assert torch.equal(rotate(x, cos[:, None], sin[:, None]), apply_rotary_pos_emb(x, x, cos, sin)[0])
