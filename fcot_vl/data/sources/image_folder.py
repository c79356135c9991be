"""Folder of images without text, to be labelled."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fcot_vl.common.text import clean_text
from fcot_vl.data.dataset import Origin, Sample
from fcot_vl.data.images import LazyImage
from fcot_vl.data.sources.base import Source, size_of_file

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp"}


class ImageFolder(Source):
    """Images of a folder and its subfolders, in name order, without text, to be labelled.

    Attributes:
        refused: Files that are not images by their name. Hidden files are ignored.

    Raises:
        ValueError: If the folder has no image.
    """

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = clean_text(folder.name), folder
        files = sorted(
            path
            for path in folder.rglob("*")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )
        self.files = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
        self.refused = [path for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]
        if not self.files:
            raise ValueError(f"{folder}: no image here ({', '.join(sorted(IMAGE_SUFFIXES))})")

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Sample:
        return Sample(self._id(index), [LazyImage(self.files[index])], [], "", self.name)

    def origin(self, index: int) -> Origin:
        return Origin(self.name, self._id(index), index)

    def _id(self, index: int) -> str:
        return clean_text(self.files[index].relative_to(self.folder).as_posix())

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the path and size in bytes of every image."""
        lines = [f"{self._id(index)} {size_of_file(path)}\n" for index, path in enumerate(self.files)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
