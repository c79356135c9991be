"""Debian packages whose fonts and PDFs the embedded teacher is trained and tested on, and how to unpack them.

    python tools/embedded_teacher/packages.py FOLDER     # about 1 GB; needs apt-get and dpkg, no root

Nothing is installed: every package is downloaded and unpacked below FOLDER (`fonts`, `pdf-train`, `pdf-validation`,
`pdf-test`), so that the machine's own fonts stay as they are. The Python packages with fonts come with
``pip install -e .[synthesize]``.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

FONTS = """
fonts-3270 fonts-adf-baskervald fonts-adf-gillius fonts-adf-romande fonts-adf-universalis fonts-anonymous-pro fonts-b612
fonts-beteckna fonts-cabin fonts-cantarell fonts-clear-sans fonts-cmu fonts-comfortaa fonts-comic-neue
fonts-courier-prime fonts-crosextra-carlito fonts-dejavu-core fonts-dosis fonts-ebgaramond fonts-firacode
fonts-freefont-otf fonts-gnutypewriter fonts-go fonts-hack-ttf fonts-inconsolata fonts-inter fonts-junicode fonts-jura
fonts-karla fonts-league-spartan fonts-liberation fonts-linuxlibertine fonts-lmodern fonts-mononoki fonts-noto-core
fonts-noto-mono fonts-ocr-a fonts-ocr-b fonts-open-sans fonts-opendin fonts-oxygen fonts-paratype fonts-play
fonts-quattrocento fonts-quicksand fonts-roboto-slab fonts-sil-charis fonts-sil-gentium-basic fonts-sora fonts-stix
fonts-terminus-otb fonts-texgyre fonts-tlwg-loma-ttf fonts-tuffy fonts-urw-base35 fonts-vollkorn
fonts-yanone-kaffeesatz ttf-bitstream-vera
""".split()  # noqa: SIM905
PDF_TRAIN = """
asymptote-doc developers-reference gap-doc gnuplot-doc groff lilypond-doc-pdf maxima-doc
octave-doc r-doc-pdf texlive-humanities-doc texlive-latex-recommended-doc texlive-science-doc
""".split()  # noqa: SIM905
PDF_VALIDATION = ["debian-policy", "pari-doc"]
PDF_TEST = """
auctex bash-doc ddd-doc gcl-doc graphviz-doc libcfitsio-doc maint-guide texlive-publishers-doc
""".split()  # noqa: SIM905
GROUPS = {"fonts": FONTS, "pdf-train": PDF_TRAIN, "pdf-validation": PDF_VALIDATION, "pdf-test": PDF_TEST}


def unpack(package: str, folder: Path) -> None:
    """Download `package` with apt-get and unpack its files below `folder`; a folder that is there is kept."""
    if folder.is_dir():
        return
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(["apt-get", "download", "-q", package], cwd=temporary, check=True)
        (archive,) = Path(temporary).glob("*.deb")
        partial = folder.with_name(folder.name + ".partial")
        subprocess.run(["dpkg", "-x", str(archive), str(partial)], check=True)
        partial.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to unpack into")
    folder: Path = parser.parse_args().folder
    for group, packages in GROUPS.items():
        (folder / group).mkdir(parents=True, exist_ok=True)
        for number, package in enumerate(packages, 1):
            print(f"{group} {number}/{len(packages)}: {package}", flush=True)
            unpack(package, folder / group / package)


if __name__ == "__main__":
    main()
