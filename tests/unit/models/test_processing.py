"""The processor: tiles as the original InternVL cuts them, prompts, answer masks, batches, and refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from teacher_case import picture
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)

from fcot_vl.models import FCoTVLProcessor
from fcot_vl.models.tiny import tiny_teacher_path

GRIDS = json.loads((Path(__file__).parents[2] / "data" / "tile-grids.json").read_text())


@pytest.fixture(scope="module")
def processor(teacher_folder: Path) -> FCoTVLProcessor:
    return FCoTVLProcessor.from_pretrained(teacher_folder)


@pytest.fixture(scope="module")
def processor_448(teacher_folder: Path) -> FCoTVLProcessor:
    """InternVL's own sizes: 448-pixel tiles, 12 at most, 256 visual tokens each."""
    processor = FCoTVLProcessor.from_pretrained(teacher_folder, image_seq_length=256)
    processor.image_processor.size = {"height": 448, "width": 448}
    processor.image_processor.max_patches = 12
    return processor


def test_tile_counts_equal_the_original_code(processor_448: FCoTVLProcessor) -> None:
    """Rows recorded from the original InternVL: width, height, most tiles, columns, rows, tiles with thumbnail."""
    assert len(GRIDS) == 200
    for width, height, most, columns, rows, tiles in GRIDS:
        assert get_optimal_tiled_canvas((height, width), (448, 448), 1, most) == (columns, rows)
        counted = processor_448._get_num_multimodal_tokens(image_sizes=[[height, width]], max_patches=most)
        assert counted.num_image_patches == [tiles], (width, height, most)
        assert counted.num_image_tokens == [tiles * 256 + 2]


@pytest.mark.parametrize(
    ("width", "height", "tiles"),
    [
        (448, 448, 1),  # one tile, no thumbnail
        (896, 448, 3),  # 2 x 1 and a thumbnail
        (448, 1344, 4),  # 1 x 3
        (850, 1100, 13),  # 0.773 is closest to 3 x 4 = 0.75
        (1000, 100, 11),  # 10 x 1
        (2000, 2000, 10),  # 3 x 3: as square as 1 x 1 and 2 x 2, and large enough to fill it
        (1, 1, 1),  # as square, and too small for more than one tile
        (3, 2, 7),  # 3 x 2
    ],
)
def test_real_pictures_are_cut_by_hand_computed_grids(
    processor_448: FCoTVLProcessor, width: int, height: int, tiles: int
) -> None:
    out = processor_448(images=picture(width, height), text="<IMG_CONTEXT>", return_tensors="np")
    assert out["pixel_values"].shape == (tiles, 3, 448, 448)
    assert (out["input_ids"] == processor_448.image_token_id).sum() == tiles * 256


def test_tiles_come_row_by_row_then_the_thumbnail(processor: FCoTVLProcessor) -> None:
    levels = np.array([[20, 60, 100], [140, 180, 220]], dtype=np.uint8)
    page = Image.fromarray(levels.repeat(112, 0).repeat(112, 1)).convert("RGB")
    pixels = processor(images=page, text="<IMG_CONTEXT>", return_tensors="np")["pixel_values"]
    assert pixels.shape == (7, 3, 112, 112)
    red = pixels[:, 0] * 0.229 + 0.485  # ImageNet mean and deviation undone
    np.testing.assert_allclose(red[:6, 56, 56] * 255, levels.flatten(), atol=1)
    np.testing.assert_allclose(red[6, 28::56, 18::37][:2, :3] * 255, levels, atol=1)


def test_chat_prompt(processor: FCoTVLProcessor) -> None:
    messages = [
        {
            "role": "user",
            "content": [{"type": "image", "image": picture(112, 112)}, {"type": "text", "text": "Total?"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "42"}]},
    ]
    out = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
    )
    assert set(out) == {"input_ids", "attention_mask", "pixel_values", "assistant_masks"}
    text = processor.decode(out["input_ids"][0])
    assert text == (
        "<|im_start|>user\n<img>" + "<IMG_CONTEXT>" * 16 + "</img>\nTotal?<|im_end|>\n"
        "<|im_start|>assistant\n42<|im_end|>\n"
    )
    answer = out["input_ids"][out["assistant_masks"].bool()]
    assert processor.decode(answer) == "42<|im_end|>"
    opened = processor.apply_chat_template(messages[:1], add_generation_prompt=True)
    assert opened == "<|im_start|>user\n<IMG_CONTEXT>\nTotal?<|im_end|>\n<|im_start|>assistant\n"


def test_batches_are_padded_left_and_keep_the_order_of_pictures(processor: FCoTVLProcessor) -> None:
    pages = [picture(112, 112, 1), picture(224, 112, 2), picture(112, 112, 3)]
    texts = ["<IMG_CONTEXT>", "a<IMG_CONTEXT>b<IMG_CONTEXT>c", "no picture"]
    out = processor(images=pages, text=texts, padding=True, return_tensors="pt")
    assert (out["input_ids"] == processor.image_token_id).sum(-1).tolist() == [16, (3 + 1) * 16, 0]
    assert out["attention_mask"][:, -1].tolist() == [1, 1, 1]
    assert out["attention_mask"].sum(-1).tolist() == [18, 3 + 4 + 64, len("no picture")]
    single = processor(images=pages[2], text="<IMG_CONTEXT>", return_tensors="pt")
    assert (out["pixel_values"][-1:] == single["pixel_values"]).all()


def test_tokens_per_tile_come_from_the_models_own_configuration(teacher_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "teacher"))
    settings = json.loads((folder / "processor_config.json").read_text())
    settings["image_seq_length"] = 99  # stale
    (folder / "processor_config.json").write_text(json.dumps(settings))
    assert FCoTVLProcessor.from_pretrained(folder).image_seq_length == 16
    assert FCoTVLProcessor.from_pretrained(folder, image_seq_length=4).image_seq_length == 4
    (folder / "config.json").unlink()
    assert FCoTVLProcessor.from_pretrained(folder).image_seq_length == 99


def test_saving_and_loading(processor: FCoTVLProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    loaded = FCoTVLProcessor.from_pretrained(tmp_path)
    assert loaded.image_seq_length == processor.image_seq_length
    assert loaded.chat_template == processor.chat_template
    assert loaded.image_processor.to_dict() == processor.image_processor.to_dict()
    both = [
        p(images=picture(300, 200), text="<IMG_CONTEXT> Hi!", return_tensors="pt")
        for p in (processor, loaded)
    ]
    assert all((both[0][key] == both[1][key]).all() for key in both[0])


def test_pixels_never_depend_on_torchvision(teacher_folder: Path, tmp_path: Path) -> None:
    """Published InternVL folders name the torchvision class, and a video processor beside it."""
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "teacher"))
    settings = json.loads((folder / "processor_config.json").read_text())
    image_settings = settings.pop("image_processor")
    settings["processor_class"] = "InternVLProcessor"
    (folder / "processor_config.json").write_text(json.dumps(settings))
    image_settings.update(
        image_processor_type="GotOcr2ImageProcessorFast", processor_class="InternVLProcessor"
    )
    (folder / "preprocessor_config.json").write_text(json.dumps(image_settings))
    (folder / "video_preprocessor_config.json").write_text(
        json.dumps({"video_processor_type": "InternVLVideoProcessor"})
    )
    loaded = FCoTVLProcessor.from_pretrained(folder)
    assert type(loaded.image_processor) is GotOcr2ImageProcessorPil
    assert loaded.image_processor.size == {"height": 112, "width": 112}


def test_the_embedded_tokenizer_and_settings_load() -> None:
    loaded = FCoTVLProcessor.from_pretrained(tiny_teacher_path(), image_seq_length=64)
    out = loaded(images=picture(224, 448), text="<IMG_CONTEXT>\nRead.", return_tensors="np")
    assert out["pixel_values"].shape == (3, 3, 224, 224)
    assert (out["input_ids"] == loaded.image_token_id).sum() == 3 * 64


def test_refusals(processor: FCoTVLProcessor) -> None:
    with pytest.raises(ValueError, match="Pass text"):
        processor(images=picture(100, 100))
    with pytest.raises(ValueError, match="reads images only"):
        processor(text="hi", videos=[np.zeros((2, 8, 8, 3))])
    with pytest.raises(ValueError, match=r"total 2 <IMG_CONTEXT> tokens and 1 images"):
        processor(images=picture(100, 100), text="<IMG_CONTEXT><IMG_CONTEXT>")
    with pytest.raises(ValueError, match=r"Found 1 <IMG_CONTEXT> tokens in the text but no images"):
        processor(text="<IMG_CONTEXT>")


def test_a_tokenizer_without_picture_tokens_is_refused(teacher_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "teacher"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text().replace("<IMG_CONTEXT>", "<OTHER>")
        settings = json.loads(text)
        settings.pop("context_image_token", None)
        (folder / name).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="does not know '<IMG_CONTEXT>'"):
        FCoTVLProcessor.from_pretrained(folder)
