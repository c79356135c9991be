"""Padding of small images before tiling."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from fcot_vl.models import FCoTVLProcessor
from fcot_vl.models.internvl.image_processing import PaddingImageProcessor, padded_size


@pytest.fixture(scope="module")
def processor(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FCoTVLProcessor:
    """A processor of 224-pixel tiles, 12 at most, that pads."""
    folder = tmp_path_factory.mktemp("pads")
    plain = FCoTVLProcessor.from_pretrained(teacher_folder)
    settings = plain.image_processor.to_dict() | {"max_enlargement": 2.0, "max_patches": 12}
    settings["size"] = {"height": 224, "width": 224}
    plain.image_processor = PaddingImageProcessor.from_dict(settings)
    plain.save_pretrained(folder)
    return FCoTVLProcessor.from_pretrained(folder, image_seq_length=16)


@pytest.mark.parametrize(
    ("size", "padded", "grid"),
    [
        ((500, 40), (500, 167), (3, 1)),  # InternVL takes 12 x 1
        ((120, 12), (120, 120), (1, 1)),
        ((60, 30), (112, 112), (1, 1)),  # enlarged twice, no more
        ((400, 300), (400, 400), (2, 2)),  # InternVL takes 4 x 3
        ((267, 307), (320, 320), (2, 2)),
        ((300, 150), (300, 150), (2, 1)),  # padding would save nothing
        ((1240, 1754), (1240, 1754), (2, 3)),  # does not fit without being reduced
    ],
)
def test_padded_size(size: tuple[int, int], padded: tuple[int, int], grid: tuple[int, int]) -> None:
    assert padded_size(size, 224, 12, 2.0) == padded
    assert get_optimal_tiled_canvas(padded[::-1], (224, 224), 1, 12) == grid
    assert padded_size(size, 224, 12, None) == size


def test_a_padded_image_is_never_reduced_nor_enlarged_more_than_asked() -> None:
    sizes = np.random.default_rng(0).integers(1, 1500, (3000, 2))
    for width, height in sizes.tolist():
        padded = padded_size((width, height), 224, 12, 2.0)
        if padded != (width, height):
            columns, rows = get_optimal_tiled_canvas(padded[::-1], (224, 224), 1, 12)
            scales = columns * 224 / padded[0], rows * 224 / padded[1]
            assert min(scales) > 0.99 and max(scales) < 2.05
            assert abs(scales[0] / scales[1] - 1) < 0.03


def test_tiles_show_the_image_and_white_paper(processor: FCoTVLProcessor) -> None:
    image = Image.new("RGB", (500, 40), (255, 0, 0))
    pixels = processor.image_inputs([image])["pixel_values"]
    assert len(pixels) == 4 == processor.count_image_tiles(40, 500)
    mean, std = processor.image_processor.image_mean, processor.image_processor.image_std
    white = [(1 - m) / s for m, s in zip(mean, std, strict=True)]
    assert np.allclose(pixels[0, :, -1, 0], white, atol=1e-5)
    green = 1  # 0 where the image is, 1 on the paper
    assert pixels[0, green, 10, 10] < 0 < pixels[0, green, 100, 10]


def test_a_page_is_cut_as_internvl_cuts_it(processor: FCoTVLProcessor) -> None:
    page = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1300, 900, 3), dtype=np.uint8))
    padding = processor.image_inputs([page])["pixel_values"]
    processor.image_processor.max_enlargement = None
    try:
        assert (padding == processor.image_inputs([page])["pixel_values"]).all()
        assert processor.count_image_tiles(40, 500) == 13
    finally:
        processor.image_processor.max_enlargement = 2.0


def test_the_setting_is_saved_with_the_processor(processor: FCoTVLProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    again = FCoTVLProcessor.from_pretrained(tmp_path, image_seq_length=16)
    assert again.image_processor.max_enlargement == 2.0
    assert again.count_image_tiles(40, 500) == 4
