"""Where an answer looked: attention against a plain computation, tokens at their place on the page, files written."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fcot_vl.cli.app import app
from fcot_vl.data.tokenization import question_inputs
from fcot_vl.inference.loading import load_for_inference
from fcot_vl.models import FCoTVLForConditionalGeneration, FCoTVLProcessor
from fcot_vl.models.compressors.windows import Windows
from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.stages.visualize import (
    AnswerAttention,
    answer_with_attention,
    attention_of,
    cells,
    dimmed,
    page_html,
    visualize,
)
from fcot_vl.synthesize.minidoc import make_sample


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    sample = make_sample("validation", 5, 0, "dense_pages")
    path = tmp_path_factory.mktemp("page") / "page.png"
    sample.images[0].save(path)
    return path, sample


@pytest.fixture(scope="module")
def embedded():
    return load_for_inference(tiny_teacher_path())


def test_the_embedded_teacher_looks_at_what_it_reads(page, embedded):
    """Its answer stands in the second line of the right column; that is where most of the attention must lie."""
    path, sample = page
    seen = answer_with_attention(
        "embedded", *embedded, Image.open(path).convert("RGB"), sample.messages[0]["content"], 32
    )
    assert seen.answer == sample.answers[0] == "YL-2141" and "".join(seen.pieces).strip() == seen.answer
    rows, columns = seen.maps.shape[1:]
    mean = seen.maps.mean(0)
    near = mean[: rows // 8, columns // 2 :].sum()
    assert near > 5 * mean.sum() * (rows // 8) * (columns - columns // 2) / mean.size
    assert ((seen.on_page > 0) & (seen.on_page < 1)).all()
    assert (seen.maps.sum((1, 2)) <= 1 + 1e-5).all()


def test_the_attention_is_the_models_own(teacher_folder, page):
    """Against the softmax of all layers' weights that transformers gives out, on a random model."""
    model, processor = load_for_inference(teacher_folder)
    inputs = question_inputs("What?", [Image.open(page[0]).convert("RGB")], processor)
    before = model.model.language_model.config._attn_implementation
    with torch.no_grad():
        plain = model(**inputs).logits
        with attention_of(model, slice(-3, None)) as sums:
            seen = model(**inputs).logits
        again = model(**inputs).logits
        model.set_attn_implementation("eager")
        weights = model(**inputs, output_attentions=True).attentions
    assert model.model.language_model is not None and before != "eager"
    torch.testing.assert_close(plain, seen, rtol=1e-4, atol=1e-4)
    assert torch.equal(plain, again), "the decoder is as it was"
    assert len(sums) == len(weights)
    for ours, theirs in zip(sums, weights, strict=True):
        torch.testing.assert_close(ours, theirs[0, :, -3:].mean(0))


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_a_token_lies_where_its_pixels_are(teacher_folder, ratio):
    """Two tiles side by side: the first token of the second tile begins in the middle of the page's top row."""
    processor = FCoTVLProcessor.from_pretrained(teacher_folder)
    per_tile = processor.image_seq_length
    tile = processor.image_processor.size["width"]
    size = (2 * tile, tile)
    tiles = processor.count_image_tiles(size[1], size[0])
    assert tiles == 3, "two and a thumbnail"
    processor.image_seq_length = per_tile // ratio
    shares = torch.zeros(1, tiles * per_tile // ratio)
    shares[0, per_tile // ratio] = 1.0
    grid = cells(shares, size, processor, ratio)[0]
    side = round(per_tile**0.5)
    assert grid.shape == (side, 2 * side)
    expected = np.zeros_like(grid)
    expected[0, side : side + ratio] = 1 / ratio
    np.testing.assert_allclose(grid, expected)


@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_a_window_lies_where_its_pixels_are(teacher_folder, ratio):
    """What the first window of the second tile's second row of windows was made of is what it is drawn over."""
    processor = FCoTVLProcessor.from_pretrained(teacher_folder)
    per_tile = processor.image_seq_length
    width = processor.image_processor.size["width"]
    side = round(per_tile**0.5)
    windows = Windows(per_tile, ratio)
    token = windows.grid[1]
    source = torch.zeros(1, per_tile, 1, requires_grad=True)
    windows.mean(source)[0, token].sum().backward()
    processor.image_seq_length = per_tile // ratio
    shares = torch.zeros(1, 3 * per_tile // ratio)
    shares[0, per_tile // ratio + token] = 1.0
    grid = cells(shares, (2 * width, width), processor, ratio, windows.window)[0]
    np.testing.assert_allclose(grid[:, side:], source.grad.reshape(side, side))
    assert not grid[:, :side].any()


def test_a_student_of_windows_is_drawn(page, teacher_folder, tmp_path):
    student = tmp_path / "student"
    FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 4, "conv2d").save_pretrained(student)
    FCoTVLProcessor.from_pretrained(teacher_folder, image_seq_length=4).save_pretrained(student)
    (seen,) = visualize(page[0], "What?", tmp_path / "out", [str(student)], 2)
    assert (seen.maps[:, ::2, ::2] == seen.maps[:, 1::2, 1::2]).all() and seen.maps.any()


def test_brightness_follows_attention():
    page = Image.new("RGB", (40, 20), "white")
    grid = np.zeros((1, 2), dtype=np.float32)
    grid[0, 1] = 0.5
    pixels = np.asarray(dimmed(page, grid))
    assert pixels[10, 39].min() > 240 and pixels[10, 0].max() < 120


def test_everything_is_written_side_by_side(page, teacher_folder, tmp_path):
    student = tmp_path / "student"
    FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2).save_pretrained(student)
    FCoTVLProcessor.from_pretrained(teacher_folder, image_seq_length=8).save_pretrained(student)
    found = visualize(
        page[0], "What <b>is</b> $x$?", tmp_path / "out", [str(teacher_folder), str(student)], 4
    )
    assert [one.compress_ratio for one in found] == [1, 2]
    assert found[0].visual_tokens == 2 * found[1].visual_tokens
    assert np.asarray(Image.open(tmp_path / "out" / "attention.png").convert("L")).std() > 5
    record = json.loads((tmp_path / "out" / "attention.json").read_text())
    assert [len(m["pieces"]) for m in record["models"]] == [len(one.pieces) for one in found]
    html = (tmp_path / "out" / "attention.html").read_text()
    assert "<b>is" not in html and "http" not in html.replace("http-equiv", "")


def test_an_answer_cannot_end_the_script(page):
    seen = look_of("</script><script>alert(1)")
    assert "</script><script>alert" not in page_html(Image.new("RGB", (8, 8)), "q", [seen])


def look_of(text: str):
    one = np.ones((1, 1, 1), dtype=np.float32)
    return AnswerAttention("m", 1, 1, text, [text], one, np.ones(1, dtype=np.float32))


def test_what_has_no_place_on_the_page_is_refused(page, teacher_folder, tmp_path):
    student = tmp_path / "student"
    FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2, "qformer").save_pretrained(student)
    FCoTVLProcessor.from_pretrained(teacher_folder, image_seq_length=8).save_pretrained(student)
    with pytest.raises(ValueError, match="compressor qformer"):
        visualize(page[0], "What?", tmp_path / "out", [str(student)])
    with pytest.raises(ValueError, match="question is empty"):
        visualize(page[0], " ", tmp_path / "out")


def test_the_command(page, tmp_path):
    ran = CliRunner().invoke(
        app, ["visualize", str(page[0]), "What is the Mat?", "--output", str(tmp_path / "o")]
    )
    assert ran.exit_code == 0 and "YL-2141" in ran.output
