"""Truncated images are refused, whatever Pillow's process-wide switch says, in any thread."""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFile

from fcot_vl.data import images
from fcot_vl.data.dataset import SCHEMA, SampleFolder
from fcot_vl.data.images import ImageError, LazyImage, open_image
from fcot_vl.data.truncation import kept_setting, refuse_truncated


def truncated(path: Path, kind: str) -> bytes:
    buffer = BytesIO()
    with Image.open(path) as image:
        image.save(buffer, kind)
    return buffer.getvalue()[: len(buffer.getvalue()) * 2 // 3]


@pytest.mark.parametrize("setting", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_truncated_picture_is_refused_whatever_pillow_is_told(
    noise: Path, kind: str, setting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", setting)
    data = truncated(noise, kind)
    with pytest.raises(ImageError):
        open_image(data)
    with pytest.raises(ImageError):
        LazyImage(data).load()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is setting
    assert open_image(noise).size == (64, 64)


def test_damaged_checksums_of_a_png_are_refused_too(noise: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = bytearray(noise.read_bytes())
    data[len(data) // 2] ^= 255
    with pytest.raises(ImageError, match="damaged"):
        open_image(bytes(data))


def test_records_of_a_shard_refuse_damage_whatever_pillow_is_told(
    noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"images": [{"bytes": truncated(noise, "JPEG"), "path": None}], "id": "r7", "messages": []}
    row |= {"task": "forms", "source": "s", "answers": ["a"], "metric": "anls", "density": 1.0, "tiles": 1}
    pq.write_table(pa.Table.from_pylist([row], schema=SCHEMA), tmp_path / "a.parquet")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    (image,) = SampleFolder(tmp_path)[0].images
    assert image.size == (64, 64)  # known from the header
    with pytest.raises(ImageError, match="sample r7: damaged"):
        image.load()


def test_threads_leave_pillow_and_the_warnings_as_they_were(noise: Path) -> None:
    whole, cut = noise.read_bytes(), truncated(noise, "JPEG")
    filters = list(warnings.filters)

    def read(number: int) -> bool:
        try:
            open_image(cut if number % 2 else whole)
        except ImageError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        read_all = list(pool.map(read, range(200)))
    assert read_all == [number % 2 == 0 for number in range(200)]
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert warnings.filters == filters


def test_a_switch_turned_on_meanwhile_lets_nothing_in(noise: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    plain, times = images._to_rgb, []

    def disturbed(image: Image.Image) -> Image.Image:
        times.append(ImageFile.LOAD_TRUNCATED_IMAGES)
        if len(times) == 1:
            ImageFile.LOAD_TRUNCATED_IMAGES = True  # as another thread does that imports weasyprint
        return plain(image)

    monkeypatch.setattr(images, "_to_rgb", disturbed)
    assert open_image(noise).size == (64, 64)
    assert times == [False, False], "what was decoded under the other setting was used"
    assert ImageFile.LOAD_TRUNCATED_IMAGES, "the other thread's setting is lost"


def test_an_import_waits_for_decoding_and_changes_nothing(
    noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    imported = threading.Event()

    def bring() -> None:
        with kept_setting():
            ImageFile.LOAD_TRUNCATED_IMAGES = True
            imported.set()

    with refuse_truncated() as decoding:
        other = threading.Thread(target=bring)
        other.start()
        assert not imported.wait(0.1)
    other.join(timeout=30)
    assert imported.is_set() and decoding.held
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_process_forked_meanwhile_can_read(noise: Path) -> None:
    with refuse_truncated():
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if open_image(noise).size == (64, 64) else 1)
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
