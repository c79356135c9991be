"""Positions of visual and text tokens, and generation that does not depend on cache, batch, padding or beams."""

from collections.abc import Callable

import pytest
import torch
from teacher_case import EOS_TOKEN_ID, IMAGE_TOKEN_ID, PAD_TOKEN_ID, picture

from fcot_vl.models import FCoTVLForConditionalGeneration

V, T, P = IMAGE_TOKEN_ID, 50, PAD_TOKEN_ID  # a visual token, a text token, padding
Make = Callable[..., FCoTVLForConditionalGeneration]


def positions(model: FCoTVLForConditionalGeneration, ids: list[int], padded: bool = False) -> list[int]:
    input_ids = torch.tensor([ids])
    mask = (input_ids != P).long() if padded else None
    return model.visual_position_ids(input_ids, mask)[0].tolist()


def test_kept_positions_by_hand(make_student: Make) -> None:
    kept = make_student(8, visual_positions="kept")  # 16 teacher tokens a tile become 2
    # one tile: text 0 1, teacher's tile 2..17 of which 2 and 10 remain, text from 18
    assert positions(kept, [T, T, V, V, T, T]) == [0, 1, 2, 10, 18, 19]
    # two tiles in a row, then text
    assert positions(kept, [T, V, V, V, V, T]) == [0, 1, 9, 17, 25, 33]
    # two pictures apart
    assert positions(kept, [T, V, V, T, V, V, T]) == [0, 1, 9, 17, 18, 26, 34]
    # left padding takes no position; nor does right padding
    assert positions(kept, [P, P, T, V, V, T], padded=True) == [0, 0, 0, 1, 9, 17]
    assert positions(kept, [T, V, V, T, P], padded=True) == [0, 1, 9, 17, 0]
    # text alone
    assert positions(kept, [T, T, T]) == [0, 1, 2]


def test_a_window_stands_where_its_upper_left_token_stands(make_student: Make) -> None:
    # 4 x 4 tokens a tile; windows of 2 x 2 begin at 0, 2, 8 and 10
    four = make_student(4, "conv2d", "kept")
    assert positions(four, [T, V, V, V, V, T]) == [0, 1, 3, 9, 11, 17]
    assert positions(four, [V, V, V, V, V, V, V, V, T]) == [0, 2, 8, 10, 16, 18, 24, 26, 32]
    assert positions(four, [P, T, V, V, V, V, T, V, V, V, V], padded=True) == [
        *(0, 0),
        *(1, 3, 9, 11),
        *(17, 18, 20, 26, 28),
    ]
    # windows of 2 x 4 begin at 0 and 8, of 1 x 2 in every second token of a row, of 4 x 4 once
    assert positions(make_student(8, "ldpv2", "kept"), [T, V, V, T]) == [0, 1, 9, 17]
    assert positions(make_student(2, "ldpv2", "kept"), [V] * 8 + [T]) == [*range(0, 16, 2), 16]
    assert positions(make_student(16, "ldpv2", "kept"), [V, T]) == [0, 16]
    # learned queries have no place: evenly spread, as runs are
    assert positions(make_student(4, "qformer", "kept"), [V, V, V, V, T]) == [0, 4, 8, 12, 16]
    assert positions(make_student(4, "conv2d", "compact"), [T, V, V, V, V, T]) == [0, 1, 2, 3, 4, 5]


def test_compact_positions_by_hand(make_student: Make) -> None:
    compact = make_student(8, visual_positions="compact")
    assert positions(compact, [T, T, V, V, T, T]) == [0, 1, 2, 3, 4, 5]
    assert positions(compact, [P, P, T, V, V, T], padded=True) == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("compressor", ["conv", "token_packer"])
@pytest.mark.parametrize("ratio", [2, 4, 8, 16])
def test_text_stands_where_the_teacher_has_it(
    make_student: Make, processor_for: Callable, ratio: int, compressor: str
) -> None:
    def text_positions(model: FCoTVLForConditionalGeneration) -> list[int]:
        encoded = processor_for(model)(
            images=[picture(300, 200), picture(90, 100)],
            text="ab<IMG_CONTEXT>\ncd<IMG_CONTEXT>ef",
            return_tensors="pt",
        )
        ids = encoded["input_ids"]
        return model.visual_position_ids(ids)[ids != V].tolist()

    assert text_positions(make_student(ratio, compressor, "kept")) == text_positions(make_student(1))


def batch(processor: Callable, prompts: list[tuple[str, list]]) -> dict[str, torch.Tensor]:
    images = [image for _, pictures in prompts for image in pictures]
    encoded = processor(images=images, text=[text for text, _ in prompts], padding=True, return_tensors="pt")
    return dict(encoded)


PROMPTS = [
    ("<IMG_CONTEXT>\nWhat is the total?", [picture(300, 200, 1)]),
    ("Compare <IMG_CONTEXT> and <IMG_CONTEXT>.", [picture(100, 100, 2), picture(120, 250, 3)]),
    ("No picture at all, only a question of some length that needs no padding?", []),
    ("<IMG_CONTEXT>", [picture(60, 60, 4)]),
]


def generate(model: FCoTVLForConditionalGeneration, inputs: dict, **options: object) -> torch.Tensor:
    """New tokens, `[batch * beams, 12]`."""
    out = model.generate(**inputs, max_new_tokens=12, min_new_tokens=12, do_sample=False, **options)
    return out[:, inputs["input_ids"].shape[1] :]


def by_hand(model: FCoTVLForConditionalGeneration, inputs: dict, n_new: int) -> torch.Tensor:
    """Greedy decoding by calling `forward` on the whole sequence again and again."""
    ids, mask, n_prompt = inputs["input_ids"], inputs["attention_mask"], inputs["input_ids"].shape[1]
    for _ in range(n_new):
        logits = model(ids, pixel_values=inputs["pixel_values"], attention_mask=mask, use_cache=False).logits[
            :, -1
        ]
        logits[:, [IMAGE_TOKEN_ID, EOS_TOKEN_ID]] = -torch.inf
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=-1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=-1)
    return ids[:, n_prompt:]


@pytest.mark.parametrize("visual_positions", ["kept", "compact"])
@pytest.mark.parametrize("ratio", [2, 8])
def test_generate_is_the_same_with_cache_batch_and_padding(
    make_student: Make, processor_for: Callable, ratio: int, visual_positions: str
) -> None:
    model = make_student(ratio, visual_positions=visual_positions)
    processor = processor_for(model)
    together = batch(processor, PROMPTS)
    assert (together["attention_mask"][:, 0] == 0).sum() >= 2  # left padding is in the game
    new = generate(model, together)
    assert torch.equal(new, by_hand(model, together, 12))
    assert torch.equal(new, generate(model, together, use_cache=False))
    for row, prompt in enumerate(PROMPTS[:2]):
        alone = batch(processor, [prompt])
        assert torch.equal(new[row : row + 1], generate(model, alone))
        # with one prompt and no padding transformers drops the mask: the case where positions alone decide
        assert torch.equal(new[row : row + 1], generate(model, alone, use_cache=False))
    assert len({tuple(row) for row in new.tolist()}) == len(PROMPTS)  # the prompts matter


@pytest.mark.parametrize("visual_positions", ["kept", "compact"])
def test_beams_and_several_samples_keep_pictures_apart(
    make_student: Make, processor_for: Callable, visual_positions: str
) -> None:
    model = make_student(4, visual_positions=visual_positions)
    processor = processor_for(model)
    together = generate(model, batch(processor, PROMPTS), num_beams=3)
    for row, prompt in enumerate(PROMPTS[:2]):
        assert torch.equal(together[row : row + 1], generate(model, batch(processor, [prompt]), num_beams=3))


def test_generate_from_cached_features(make_student: Make, processor_for: Callable) -> None:
    model = make_student(4, visual_positions="kept")
    inputs = batch(processor_for(model), PROMPTS)
    expected = [generate(model, inputs), generate(model, inputs, num_beams=2)]
    inputs["visual_features"] = model.get_visual_features(inputs.pop("pixel_values"))
    model.model.vision_tower.forward = None  # any use of the ViT from here on fails
    assert torch.equal(generate(model, inputs), expected[0])
    assert torch.equal(generate(model, inputs, num_beams=2), expected[1])


def test_generate_in_chunks_and_with_a_static_cache(make_student: Make, processor_for: Callable) -> None:
    model = make_student(4, visual_positions="kept")
    inputs = batch(processor_for(model), PROMPTS)
    expected = generate(model, inputs)
    assert torch.equal(generate(model, inputs, prefill_chunk_size=7), expected)
    assert torch.equal(generate(model, inputs, cache_implementation="static", disable_compile=True), expected)


def test_a_conversation_goes_on_from_its_cache(make_student: Make, processor_for: Callable) -> None:
    model = make_student(4, visual_positions="kept")
    inputs = batch(processor_for(model), PROMPTS[:1])
    first = model.generate(
        **inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False, return_dict_in_generate=True
    )
    follow_up = torch.cat([first.sequences, torch.full((1, 3), T)], dim=-1)
    expected = generate(model, {"input_ids": follow_up, "pixel_values": inputs["pixel_values"]})
    resumed = generate(model, {"input_ids": follow_up}, past_key_values=first.past_key_values)
    assert torch.equal(resumed, expected)


def test_kept_needs_the_whole_sequence(make_student: Make, processor_for: Callable) -> None:
    model = make_student(4, visual_positions="kept")
    inputs = batch(processor_for(model), PROMPTS[:1])
    cache = model(**inputs, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="needs the input_ids of the whole sequence"):
        model(input_ids=torch.tensor([[T]]), past_key_values=cache)
    with pytest.raises(ValueError, match="needs the input_ids of the whole sequence"):
        model.generate(input_ids=torch.tensor([[T]]), past_key_values=cache, max_new_tokens=2)
    with pytest.raises(ValueError, match="needs the input_ids of the whole sequence"):
        model.generate(inputs_embeds=model.get_input_embeddings()(torch.tensor([[T, T]])), max_new_tokens=2)


@pytest.mark.parametrize("visual_positions", ["kept", "compact"])
def test_forward_without_a_mask_equals_forward_with_one(
    make_student: Make, processor_for: Callable, visual_positions: str
) -> None:
    model = make_student(4, visual_positions=visual_positions)
    inputs = batch(processor_for(model), PROMPTS[:1])
    masked = model(**inputs, use_cache=False).logits
    del inputs["attention_mask"]
    torch.testing.assert_close(model(**inputs, use_cache=False).logits, masked, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(**inputs, use_cache=True).logits, masked, rtol=1e-4, atol=1e-5)


def test_schemes_differ_and_the_teacher_has_one(make_student: Make, processor_for: Callable) -> None:
    kept, compact = make_student(4, visual_positions="kept"), make_student(4, visual_positions="compact")
    inputs = batch(processor_for(kept), PROMPTS[:1])
    assert (kept(**inputs).logits - compact(**inputs).logits).abs().max() > 1e-2
    inputs = batch(processor_for(make_student(1)), PROMPTS[:1])
    one_kept, one_compact = (
        make_student(1, visual_positions=p)(**inputs).logits for p in ("kept", "compact")
    )
    assert torch.equal(one_kept, one_compact)


@pytest.mark.parametrize("visual_positions", ["kept", "compact"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_sequences_do_not_see_each_other(
    make_student: Make, processor_for: Callable, visual_positions: str, attention: str
) -> None:
    model = make_student(4, visual_positions=visual_positions)
    model.set_attn_implementation(attention)
    singles = [batch(processor_for(model), [prompt]) for prompt in PROMPTS[:2]]
    alone = torch.cat([model(**inputs, use_cache=False).logits for inputs in singles], dim=1)
    packed = model(
        input_ids=torch.cat([inputs["input_ids"] for inputs in singles], dim=1),
        position_ids=torch.cat([model.visual_position_ids(inputs["input_ids"]) for inputs in singles], dim=1),
        pixel_values=torch.cat([inputs["pixel_values"] for inputs in singles]),
        use_cache=False,
    ).logits
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)
