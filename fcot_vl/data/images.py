"""Open an image and convert it to 8-bit RGB, or raise a one-line error that names the file.

This is the first step, before tiling. `open_image` reads an image. `LazyImage` reads the size from the header and
decodes the pixels on first use. Supported formats: JPEG, PNG, WebP, TIFF, GIF and BMP. No external program is ever run;
this is why other formats that Pillow supports, such as EPS, are not accepted. Truncated files are refused whatever the
Pillow settings of the process are (see `truncation`).
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from fcot_vl.common.errors import one_line
from fcot_vl.data.truncation import refuse_truncated

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
MAX_PIXELS = 100_000_000  # 300 MB as RGB; an A4 page at 1,000 dpi has 97 million
_ATTEMPTS = 3  # per image, in case another library makes Pillow accept truncated files meanwhile
_BITS_PER_SAMPLE = 258  # TIFF tag


class ImageError(ValueError):
    """Error for an image that cannot be used. The one-line message names the file, the reason and the fix."""


def open_image(
    source: str | Path | bytes | IO[bytes], name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read one image as an upright 8-bit RGB image on white.

    EXIF rotation is applied and transparency is composited on white. CMYK is converted with its embedded color profile
    if it has one. 16-bit grey is scaled (not clipped) to 8 bits. The first frame of an animation or of a multi-page
    file is used. Images above `max_pixels` are refused from their header, before any pixel is decoded.

    Args:
        source: Path, bytes of the file, or binary stream.
        name: Name of the image in error messages.
        max_pixels: Maximum number of pixels.

    Raises:
        ImageError: If the image cannot be used.
    """
    label = _label(source, name)
    for _ in range(_ATTEMPTS):
        with refuse_truncated() as decoding, _opened(source, label, max_pixels) as image:
            image.load()
            read = _to_rgb(_upright(image))
        if decoding.held:
            return read
    raise ImageError(
        f"{label}: another thread keeps turning on PIL.ImageFile.LOAD_TRUNCATED_IMAGES while it is read; turn it on "
        "once, before"
    )


class LazyImage(Image.Image):
    """Image of known size whose pixels are decoded by `open_image` on first use.

    Planning a training run needs the size of every image but no pixels, so only the header is read here. Anything that
    `open_image` would refuse from the header is refused immediately. Damage behind the header raises an ImageError on
    first access to the pixels.

    Args:
        source: Path, or bytes of the file.
        name: Name of the image in error messages.
    """

    def __init__(self, source: str | Path | bytes, name: str | None = None) -> None:
        super().__init__()
        self._source, self._label = source, _label(source, name)
        with refuse_truncated(), _opened(source, self._label, MAX_PIXELS) as image:
            width, height = image.size
            turned = _orientation(image) in (5, 6, 7, 8)  # EXIF: rotated by 90 degrees
        self._size = (height, width) if turned else (width, height)
        self._mode = "RGB"

    def load(self) -> Any:
        """Decode the pixels. Pillow calls this method before any use of them, as for the files it opens itself."""
        if self._im is None:
            read = open_image(self._source, self._label)
            if read.size != self._size:
                raise ImageError(
                    f"{self._label}: is {read.size} behind a header of {self._size}; save it upright first"
                )
            self._im = read.im
        return super().load()


@contextmanager
def _opened(source: str | Path | bytes | IO[bytes], label: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image and read its header. Any error inside the context becomes an ImageError."""
    data: Path | BytesIO | IO[bytes]
    if isinstance(source, (str, Path)):
        data = _regular_file(Path(source), label)
    elif isinstance(source, bytes):
        data = BytesIO(source)
    else:
        data = source
    if isinstance(data, BytesIO) and not data.getbuffer().nbytes:
        raise ImageError(f"{label}: the file is empty")
    try:
        with Image.open(data, formats=FORMATS) as image:
            _refuse_large(image, label, max_pixels)
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{label}: too large ({one_line(error)}); make it smaller first") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{label}: not an image that can be read (JPEG, PNG, WebP, TIFF, GIF or BMP)"
        ) from None
    except MemoryError:
        raise ImageError(f"{label}: not enough memory to decode it; make it smaller first") from None
    except Exception as error:  # a decoder may raise nearly any exception on damaged bytes
        raise ImageError(f"{label}: damaged or cut short ({one_line(error)})") from None


def _label(source: str | Path | bytes | IO[bytes], name: str | None) -> str:
    if name is None:
        if isinstance(source, (str, Path)):
            name = str(source)
        else:
            name = str(getattr(source, "name", "the image"))
    return " ".join(name.split()) or "''"


def _regular_file(path: Path, label: str) -> Path:
    try:
        info = path.stat()
    except FileNotFoundError:
        raise ImageError(f"{label}: no such file") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{label}: cannot be opened ({one_line(error)})") from None
    if stat.S_ISDIR(info.st_mode):
        raise ImageError(f"{label}: is a folder, not an image")
    if not stat.S_ISREG(info.st_mode):
        raise ImageError(f"{label}: is not a regular file")
    if info.st_size == 0:
        raise ImageError(f"{label}: the file is empty")
    return path


def _refuse_large(image: Image.Image, label: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{label}: {width:,} x {height:,} pixels are more than the {max_pixels / 1e6:,.0f} million accepted; "
            "scale it down or cut it into pages first"
        )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation from the header; 1 is upright."""
    try:
        # Pillow's own method for PNG decodes the whole image to look for an EXIF block behind the pixels.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:  # only its EXIF block is damaged
        return 1


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the image is intact, only its EXIF block is damaged
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _wide_grey_to_rgb(image)
    if image.mode == "CMYK":
        return _through_profile(image) or image.convert("RGB")
    if image.mode == "LAB":
        return _through_profile(
            image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        ) or image.convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    rgb = image.convert("RGB")
    return rgb if rgb is not image else image.copy()


def _through_profile(
    image: Image.Image, profile: ImageCms.ImageCmsProfile | None = None
) -> Image.Image | None:
    """Convert the image to sRGB with its color profile. Return None if the profile is missing or broken."""
    embedded = image.info.get("icc_profile")
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(embedded)) if embedded else profile
        if source is None:
            return None
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _wide_grey_to_rgb(image: Image.Image) -> Image.Image:
    """Convert grey deeper than 8 bits, scaled from its full range. For 32-bit and float files, use their own range."""
    grey = np.asarray(image).astype(np.float64)
    transparent = image.info.get("transparency")
    if image.mode == "F" or grey.max() > 65535 or grey.min() < 0:
        grey = np.nan_to_num(grey, nan=0.0, posinf=float(np.finfo(np.float32).max), neginf=0.0)
        low, high = float(grey.min()), float(grey.max())
        if image.mode == "F" and low >= 0.0 and high <= 255.0:
            low, high = 0.0, 1.0 if high <= 1.0 else 255.0
    else:
        tags = getattr(image, "tag_v2", {})
        bits = int(np.max(tags.get(_BITS_PER_SAMPLE, 16)))
        low, high = 0.0, float(2 ** min(bits, 16) - 1)
    scaled = np.clip((grey - low) * (255.0 / max(high - low, 1e-12)), 0.0, 255.0)
    if isinstance(transparent, int):
        scaled[grey == transparent] = 255.0
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")
