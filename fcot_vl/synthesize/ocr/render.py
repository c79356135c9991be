"""Render HTML to an image, with headless Chromium if it is installed and with weasyprint otherwise.

Nothing is fetched from the network. Only pages written by `web` are rendered, and these have no scripts, addresses or
images. As additional protection, the pages forbid them with a Content-Security-Policy, Chromium resolves no names, and
weasyprint's fetcher refuses every request.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from fcot_vl.data.images import open_image
from fcot_vl.data.truncation import kept_setting
from fcot_vl.synthesize.ocr.content import INSTALL

TALLEST = 2600  # pixels
# Colour of the last element of every page. If it is not found, the page did not fit.
END = (255, 0, 254)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PANGO = "libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0"
_SECONDS = 60


@lru_cache
def browser() -> str | None:
    """Return the path of an installed Chromium, or None."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


@lru_cache
def renderer() -> str:
    """Return the name and version of the renderer used on this machine.

    Raises:
        ValueError: If there is no renderer. The message names the package to install.
    """
    path = browser()
    if path is not None:
        ran = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        found = re.search(r"\d+\.\d+[.\d]*", ran.stdout)
        return f"chromium {found.group() if found else '?'}"
    _weasyprint()
    return f"weasyprint {importlib.metadata.version('weasyprint')}"


def _weasyprint() -> Any:
    try:
        with kept_setting():  # its import makes Pillow accept truncated images
            import weasyprint
    except ModuleNotFoundError:
        raise ValueError(f"web pages need Chromium (apt install chromium) or weasyprint: {INSTALL}") from None
    except OSError:  # pango, loaded by name, is missing
        raise ValueError(f"weasyprint needs pango: apt install {_PANGO} (or chromium)") from None
    return weasyprint


def picture(html: str, width: int) -> Image.Image | None:
    """Render `html` as an RGB image of `width` pixels, as high as its content; None if higher than `TALLEST`.

    `html` ends with a block in the colour `END`.

    Raises:
        ValueError: If the renderer fails.
    """
    path = browser()
    image = _by_weasyprint(html, width) if path is None else _by_chromium(path, html, width)
    rows = np.flatnonzero((np.asarray(image) == END).all(axis=2).mean(axis=1) > 0.5)
    return image.crop((0, 0, width, int(rows[0]))) if len(rows) else None


def _by_chromium(path: str, html: str, width: int) -> Image.Image:
    with tempfile.TemporaryDirectory(prefix="fcot-vl-web-", ignore_cleanup_errors=True) as folder:
        page, shot = Path(folder) / "page.html", Path(folder) / "page.png"
        page.write_text(html, encoding="utf-8")
        command = [
            path,
            "--headless",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--force-device-scale-factor=1",
            # The headless window is higher than its viewport; the rest of the image stays empty.
            f"--window-size={width},{TALLEST + 200}",
            f"--user-data-dir={folder}/profile",
            f"--screenshot={shot}",
            page.as_uri(),
        ]
        if os.geteuid() == 0:  # Chromium's sandbox does not run as root
            command.insert(1, "--no-sandbox")
        try:
            ran = subprocess.run(
                command, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise ValueError(
                f"{path} did not answer in {_SECONDS} s on a page of {len(html)} characters"
            ) from None
        if not shot.exists():
            said = ran.stderr.decode("utf-8", "replace").strip().splitlines() or ["no output"]
            raise ValueError(f"{path} wrote no screenshot: {said[-1][:200]}")
        return open_image(shot)


def _by_weasyprint(html: str, width: int) -> Image.Image:
    weasyprint = _weasyprint()
    try:
        import pypdfium2
    except ModuleNotFoundError:
        raise ValueError(f"web pages by weasyprint need pypdfium2: {INSTALL}") from None

    def refuse(url: str, *_: object, **__: object) -> NoReturn:
        raise ValueError(f"not fetched: {url}")

    page = weasyprint.CSS(string=f"@page {{ size: {width}px {TALLEST}px; margin: 0 }}")
    pdf = weasyprint.HTML(string=html, url_fetcher=refuse).write_pdf(stylesheets=[page])
    document = pypdfium2.PdfDocument(pdf)
    try:
        image = document[0].render(scale=96 / 72).to_pil().convert("RGB")
    finally:
        document.close()
    return image.resize((width, image.height)) if image.width != width else image
