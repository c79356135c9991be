"""Every odd picture a person may bring: opened right, or refused in one line that names the file."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from fcot_vl.data.images import ImageError, open_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Top left, top right, bottom left, bottom right."""
    w, h = image.size
    return [image.getpixel(at) for at in ((0, 0), (w - 1, 0), (0, h - 1), (w - 1, h - 1))]  # type: ignore[misc]


def near(got: tuple[int, ...], wanted: tuple[int, ...], by: int = 12) -> bool:
    return all(abs(a - b) <= by for a, b in zip(got, wanted, strict=True))


def quarters(size: int = 64) -> Image.Image:
    """Red, green / blue, white."""
    image = Image.new("RGB", (size, size), WHITE)
    half = size // 2
    image.paste(RED, (0, 0, half, half))
    image.paste(GREEN, (half, 0, size, half))
    image.paste(BLUE, (0, half, half, size))
    return image


def png_header_only(width: int, height: int) -> bytes:
    """A PNG that claims this size and holds almost no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_every_format_opens_the_same(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"picture.{kind.lower()}"
    quarters().save(path, kind, **({"lossless": True} if kind == "WEBP" else {}))
    for source in (path, str(path), path.read_bytes(), BytesIO(path.read_bytes())):
        image = open_image(source)
        assert image.mode == "RGB"
        assert image.size == (64, 64)
        assert all(map(near, corners(image), (RED, GREEN, BLUE, WHITE)))


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, (RED, GREEN, BLUE, WHITE)),
        (2, (GREEN, RED, WHITE, BLUE)),
        (3, (WHITE, BLUE, GREEN, RED)),
        (6, (BLUE, RED, WHITE, GREEN)),
        (8, (GREEN, WHITE, RED, BLUE)),
    ],
)
def test_exif_rotation_is_applied(
    tmp_path: Path, orientation: int, expected: tuple[tuple[int, ...], ...]
) -> None:
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters().save(path, exif=exif, quality=95)
    assert all(map(near, corners(open_image(path)), expected))


def test_damaged_exif_keeps_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    quarters().save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage", quality=95)
    assert all(map(near, corners(open_image(path)), (RED, GREEN, BLUE, WHITE)))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "print.x"
    quarters().convert("CMYK").save(path, kind)
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
    assert all(map(near, corners(open_image(path)), (RED, GREEN, BLUE, WHITE)))


def test_cmyk_with_a_broken_profile_falls_back(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    quarters().convert("CMYK").save(path, icc_profile=b"not a profile")
    assert all(map(near, corners(open_image(path)), (RED, GREEN, BLUE, WHITE)))


def test_lab(tmp_path: Path) -> None:
    path = tmp_path / "lab.tif"
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    stored = ImageCms.applyTransform(quarters(), to_lab)
    assert stored is not None
    stored.save(path)
    got = corners(open_image(path))
    assert all(
        near(a, b, by=30) for a, b in zip(got, (RED, GREEN, BLUE, WHITE), strict=True)
    )  # 8-bit Lab is coarse


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scan.{suffix}"
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp).save(path)
    image = np.asarray(open_image(path))
    assert image.shape == (4, 256, 3)
    assert np.array_equal(image[0, :, 0], np.arange(256))


def test_dark_16_bit_scan_stays_dark(tmp_path: Path) -> None:
    """Scaling is by the format's range, not by the picture's own brightest pixel."""
    path = tmp_path / "dark.png"
    Image.fromarray(np.full((8, 8), 257, np.uint16)).save(path)
    assert np.asarray(open_image(path)).max() == 1


def test_float_and_32_bit_tiff(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 256)[None].repeat(2, 0)
    for name, data in {"f.tif": ramp.astype(np.float32), "i.tif": (ramp * 2**30).astype(np.int32)}.items():
        Image.fromarray(data).save(tmp_path / name)
        assert (
            np.abs(np.asarray(open_image(tmp_path / name))[0, :, 0].astype(int) - np.arange(256)).max() <= 1
        )


def test_bilevel(tmp_path: Path) -> None:
    path = tmp_path / "fax.tif"
    Image.fromarray(np.eye(8, dtype=bool)).save(path, compression="group4")
    image = open_image(path)
    assert (image.getpixel((0, 0)), image.getpixel((1, 0))) == (WHITE, (0, 0, 0))


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_transparency_is_white(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"icon.{suffix}"
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    image.putpixel((1, 1), 1)
    image.save(path, transparency=0)
    opened = open_image(path)
    assert (opened.getpixel((0, 0)), opened.getpixel((1, 1))) == (WHITE, RED)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "glass.png"
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    image.putpixel((2, 0), (0, 0, 0, 255))
    image.convert(mode).save(path)
    opened = open_image(path)
    assert [opened.getpixel((x, 0))[0] for x in range(3)] == [255, 127, 0]  # type: ignore[index]


def test_rgb_with_a_transparent_color(tmp_path: Path) -> None:
    path = tmp_path / "key.png"
    quarters().save(path, transparency=RED)
    assert all(map(near, corners(open_image(path)), (WHITE, GREEN, BLUE, WHITE)))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animation_gives_its_first_frame(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "moving.x"
    frames = [Image.new("RGB", (16, 16), color) for color in (RED, GREEN, BLUE)]
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])
    assert near(corners(open_image(path))[0], RED)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_extreme_shapes_are_accepted(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "thin.png"
    Image.new("RGB", size, RED).save(path)
    assert open_image(path).size == size


@pytest.mark.parametrize("size", [(30_000, 30_000), (10_001, 10_000), (2**31 - 1, 2**31 - 1)])
def test_too_large_is_refused_before_decoding(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_header_only(*size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_refused(path, "huge.png", "first")


def test_between_pillows_limit_and_ours_no_warning_escapes(tmp_path: Path) -> None:
    """95 million pixels: Pillow warns, we accept the size and fail only on the missing pixels."""
    path = tmp_path / "large.png"
    path.write_bytes(png_header_only(9_500, 10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_refused(path, "large.png", "damaged or cut short")


def test_the_limit_is_a_setting(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    quarters().save(path)
    assert open_image(path, max_pixels=64 * 64).size == (64, 64)
    with pytest.raises(ImageError, match="64 x 64 pixels"):
        open_image(path, max_pixels=64 * 64 - 1)


def check_refused(path: Path, *words: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_text_renamed_png(tmp_path: Path) -> None:
    path = tmp_path / "letter.png"
    path.write_text("Dear reader,\nthis is not a picture.\n")
    check_refused(path, "letter.png", "not an image")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_truncated_file(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = BytesIO()
    Image.fromarray(noise).save(whole, kind)
    path = tmp_path / "cut.x"
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    check_refused(path, "cut.x")


def test_empty_missing_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    check_refused(tmp_path / "empty.png", "empty.png", "empty")
    check_refused(tmp_path / "missing.png", "missing.png", "no such file")
    check_refused(tmp_path, tmp_path.name, "is a folder")
    check_refused(tmp_path / "odd\nname.png", "odd name.png", "no such file")


def test_bytes_and_streams_are_called_by_their_name() -> None:
    for source in (b"", b"not a picture", BytesIO(b""), BytesIO(b"not an image")):
        with pytest.raises(ImageError, match=r"^upload 7: "):
            open_image(source, name="upload 7")


def test_other_formats_are_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "script.eps"
    quarters().save(path, "EPS")
    check_refused(path, "script.eps", "not an image")


def test_every_cut_and_flip_is_an_image_or_an_image_error() -> None:
    """Damaged bytes never give anything but a picture or an ImageError."""
    rng = np.random.default_rng(1)
    refused = 0
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        whole = BytesIO()
        quarters(16).save(whole, kind)
        for _ in range(60):
            data = bytearray(whole.getvalue())
            for at in rng.integers(0, len(data), 4):
                data[at] = rng.integers(0, 256)
            try:
                assert open_image(bytes(data), name="fuzz").mode == "RGB"
            except ImageError as error:
                refused += 1
                assert str(error).startswith("fuzz: ")
                assert "\n" not in str(error)
    assert refused > 60
