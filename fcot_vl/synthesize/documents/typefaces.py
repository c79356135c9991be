"""Typefaces of the pages: fonts of Python packages, some of them reserved for tests.

`KNOWN` families print pages of every split, `UNSEEN` ones only half of the test pages. All come from packages of the
`synthesize` extra and from matplotlib, so that a page is the same on every machine.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fcot_vl.synthesize.documents.words import Split
from fcot_vl.synthesize.ocr.fonts import Face, FontError
from fcot_vl.synthesize.ocr.typeset import Type


@dataclass(frozen=True)
class Family:
    """A family of typefaces: its regular and its bold face."""

    name: str
    regular: Face
    bold: Face

    def type(self, size: float, bold: bool = False) -> Type:
        """Return the regular or the bold face at `size` pixels."""
        return Type(self.bold if bold else self.regular, max(5, round(size)))


# The .ttf files of Source Serif Pro give "%" a wrong width at small sizes.
# name: (Python package, folder inside it, regular file, bold file)
KNOWN = {
    "DejaVu Sans": ("matplotlib", "mpl-data/fonts/ttf", "DejaVuSans.ttf", "DejaVuSans-Bold.ttf"),
    "DejaVu Serif": ("matplotlib", "mpl-data/fonts/ttf", "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf"),
    "DejaVu Sans Mono": ("matplotlib", "mpl-data/fonts/ttf", "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf"),
    "STIX": ("matplotlib", "mpl-data/fonts/ttf", "STIXGeneral.ttf", "STIXGeneralBol.ttf"),
    "Computer Modern": ("matplotlib", "mpl-data/fonts/ttf", "cmr10.ttf", "cmb10.ttf"),
    "Computer Modern Sans": ("matplotlib", "mpl-data/fonts/ttf", "cmss10.ttf", "cmss10.ttf"),
    "Computer Modern Typewriter": ("matplotlib", "mpl-data/fonts/ttf", "cmtt10.ttf", "cmtt10.ttf"),
    "Lato": ("font_lato", "files", "Lato-Regular.ttf", "Lato-Bold.ttf"),
    "Source Sans Pro": (
        "font_source_sans_pro",
        "files",
        "SourceSansPro-Regular.ttf",
        "SourceSansPro-Bold.ttf",
    ),
    "Source Serif Pro": (
        "font_source_serif_pro",
        "files",
        "SourceSerifPro-Regular.otf",
        "SourceSerifPro-Bold.otf",
    ),
}
UNSEEN = {
    "Roboto": ("font_roboto", "files", "Roboto-Regular.ttf", "Roboto-Bold.ttf"),
    "Caladea": ("font_caladea", "files", "Caladea-Regular.ttf", "Caladea-Bold.ttf"),
    "Manrope": ("font_manrope", "files", "Manrope-Regular.ttf", "Manrope-Bold.ttf"),
}


@lru_cache
def known() -> tuple[Family, ...]:
    """Return the families of all splits. Raises FontError with the name of a missing package."""
    return tuple(_family(name) for name in KNOWN)


@lru_cache
def unseen() -> tuple[Family, ...]:
    """Return the families that only tests print with. Raises FontError with the name of a missing package."""
    return tuple(_family(name) for name in UNSEEN)


def pick(rng: random.Random, split: Split, families: Sequence[Family] | None = None) -> Family:
    """Draw a family for a page of `split`: of `families` where given, else known, for half of the tests unseen."""
    if families is not None:
        return rng.choice(families)
    return rng.choice(unseen() if split == "test" and rng.random() < 0.5 else known())


def _family(name: str) -> Family:
    package, inside, regular, bold = (KNOWN | UNSEEN)[name]
    spec = importlib.util.find_spec(package)  # found without importing it
    if spec is None or not spec.submodule_search_locations:
        distribution = package.replace("_", "-")
        raise FontError(f"{name}, a typeface of MiniDoc's pages, is missing: pip install {distribution}")
    folder = Path(spec.submodule_search_locations[0]) / inside
    return Family(name, Face(name, str(folder / regular)), Face(name, str(folder / bold)))
