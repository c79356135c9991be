"""Fonts for printing pages, looked up on the system by family. Errors name the Debian package to install.

This is the lowest layer of the OCR-like pages. Only the families listed here are used, so that the look of a page
depends only on which of them are installed. DejaVu is always available, because matplotlib ships it.
"""

from __future__ import annotations

import importlib.util
import os
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from PIL import ImageFont

Language = Literal["latin", "zh"]
Role = Literal["print", "hand"]
SYSTEM = (
    Path("/usr/share/fonts"),
    Path("/usr/local/share/fonts"),
    Path.home() / ".local/share/fonts",
    Path.home() / ".fonts",
)
# FCOT_VL_FONTS replaces the system's font folders. Its folders are separated as in PATH. If it is empty, only
# matplotlib's fonts are used.
_GIVEN = os.environ.get("FCOT_VL_FONTS")
FOLDERS = SYSTEM if _GIVEN is None else tuple(map(Path, filter(None, _GIVEN.split(os.pathsep))))
# Characters that handwriting fonts often lack, and how people write them instead.
_PLAIN = str.maketrans("“”„‘’–—…•−", '"""\'\'--.·-')


class FontError(ValueError):
    """Error when no installed font supports the requested text. The message names the Debian packages to install."""


@dataclass(frozen=True)
class Family:
    """Font family: name, regular and bold files, Debian package, and index in a font collection."""

    name: str
    regular: str
    bold: str
    package: str
    index: int = 0


FAMILIES: dict[tuple[Role, Language], tuple[Family, ...]] = {
    ("print", "latin"): (
        Family("DejaVu Sans", "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "fonts-dejavu-core"),
        Family("DejaVu Serif", "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "fonts-dejavu-core"),
        Family("DejaVu Sans Mono", "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "fonts-dejavu-core"),
        Family(
            "Liberation Serif", "LiberationSerif-Regular.ttf", "LiberationSerif-Bold.ttf", "fonts-liberation"
        ),
        Family(
            "Liberation Sans", "LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf", "fonts-liberation"
        ),
        Family(
            "Liberation Mono", "LiberationMono-Regular.ttf", "LiberationMono-Bold.ttf", "fonts-liberation"
        ),
        Family("Noto Sans", "NotoSans-Regular.ttf", "NotoSans-Bold.ttf", "fonts-noto-core"),
        Family("Noto Serif", "NotoSerif-Regular.ttf", "NotoSerif-Bold.ttf", "fonts-noto-core"),
    ),
    ("print", "zh"): (
        Family("Noto Sans CJK SC", "NotoSansCJK-Regular.ttc", "NotoSansCJK-Bold.ttc", "fonts-noto-cjk", 2),
        Family("Noto Serif CJK SC", "NotoSerifCJK-Regular.ttc", "NotoSerifCJK-Bold.ttc", "fonts-noto-cjk", 2),
        Family("AR PL UMing CN", "uming.ttc", "uming.ttc", "fonts-arphic-uming"),
        Family("AR PL UKai CN", "ukai.ttc", "ukai.ttc", "fonts-arphic-ukai"),
    ),
    # Humor Sans is excluded: it draws lower-case letters as capitals, so that the case cannot be read.
    ("hand", "latin"): (
        Family(
            "Dancing Script", "DancingScript-Regular.otf", "DancingScript-Bold.otf", "fonts-dancingscript"
        ),
        Family("Breip", "Breip.ttf", "Breip.ttf", "fonts-breip"),
        Family("Kristi", "Kristi.ttf", "Kristi.ttf", "fonts-kristi"),
        Family("FemkeKlaver", "femkeklaver.ttf", "femkeklaver.ttf", "fonts-femkeklaver"),
        Family("dkg", "dkg.ttf", "dkgBd.ttf", "fonts-dkg-handwriting"),
        Family("Klee One", "KleeOne-Regular.ttf", "KleeOne-SemiBold.ttf", "fonts-klee"),
    ),
    # Klee One is Japanese and lacks most simplified characters, which leaves only the regular script of UKai.
    ("hand", "zh"): (Family("AR PL UKai CN", "ukai.ttc", "ukai.ttc", "fonts-arphic-ukai"),),
}
_WHAT = {"print": "printed", "hand": "handwritten"}
_IN = {"latin": "Latin", "zh": "Chinese"}


@dataclass(frozen=True)
class Face:
    """Font file (and its index in a collection) of an installed family."""

    family: str
    path: str
    index: int = 0

    def keep(self, text: str) -> str:
        """Return `text` without the characters that this face cannot print.

        If necessary, quotes and dashes are replaced by plain ones, and letters lose their accents.
        """
        covered = _coverage(self.path, self.index)
        if covered.issuperset(map(ord, text)):
            return text
        exact = (c if ord(c) in covered else unicodedata.normalize("NFKD", c.translate(_PLAIN)) for c in text)
        return "".join(c for part in exact for c in part if ord(c) in covered)


@lru_cache
def _files() -> dict[str, Path]:
    """Map file name to path for every font file on the system and those that matplotlib ships."""
    folders = list(FOLDERS)
    spec = importlib.util.find_spec("matplotlib")  # found without importing it
    if spec is not None and spec.submodule_search_locations:
        folders.insert(0, Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf")
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.[ot]t[fc]")):
            found.setdefault(path.name, path)
    return found


@lru_cache
def families(role: Role, language: Language) -> tuple[Family, ...]:
    """Return the installed families for `role` and `language`.

    Raises:
        FontError: If there is none. The message names the packages to install.
    """
    files = _files()
    wanted = FAMILIES[role, language]
    found = tuple(f for f in wanted if f.regular in files and f.bold in files)
    if not found:
        packages = list(dict.fromkeys(f.package for f in wanted))
        raise FontError(
            f"no font for {_WHAT[role]} {_IN[language]} text on this system; install one of the Debian packages "
            f"{', '.join(packages)} (apt install {packages[0]})"
        )
    return found


@lru_cache
def system_families(language: Language) -> tuple[Family, ...]:
    """Return the print families that other programs also find, without those that only matplotlib brings.

    Raises:
        FontError: If there is none. The message names the packages to install.
    """
    system = {path.name for folder in FOLDERS for path in folder.rglob("*.[ot]t[fc]")}
    found = tuple(family for family in families("print", language) if family.regular in system)
    if not found:
        raise FontError("web pages need a font that the system knows: apt install fonts-dejavu-core")
    return found


def face(family: Family, bold: bool = False) -> Face:
    """Return the file of an installed family."""
    return Face(family.name, str(_files()[family.bold if bold else family.regular]), family.index)


@lru_cache
def _coverage(path: str, index: int) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(path, fontNumber=index, lazy=True) as font:
        return frozenset(font.getBestCmap())


@lru_cache(maxsize=256)
def truetype(path: str, index: int, size: int) -> ImageFont.FreeTypeFont:
    """Open a font at `size` pixels, once per process. The basic layout is used because it is the fast one."""
    return ImageFont.truetype(path, size, index=index, layout_engine=ImageFont.Layout.BASIC)
