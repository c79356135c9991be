"""Conversation files of InternVL (a meta JSON and JSON lines) and LLaVA (one JSON array)."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcot_vl.common.errors import one_line
from fcot_vl.common.files import json_line
from fcot_vl.common.text import clean_text, has_surrogates
from fcot_vl.data.chat_format import (
    SampleError,
    images_of_parts,
    malformed,
    read_answer,
    read_question,
    read_turns,
)
from fcot_vl.data.dataset import Origin, Sample
from fcot_vl.data.images import LazyImage
from fcot_vl.data.sources.base import Source, check_local, size_of_file
from fcot_vl.data.sources.image_folder import IMAGE_SUFFIXES

IMAGE_KEYS = ("image", "images", "image_path", "image_paths", "image_file", "image_files", "img", "img_path")
_LIKE_IMAGE = re.compile(r"image|img|pict|photo|screenshot", re.IGNORECASE)
_ABOUT_IMAGE = re.compile(
    r"id$|ids$|size|width|height|count|num|source|type|caption|desc|mode|license", re.IGNORECASE
)

logger = logging.getLogger(__name__)


class JsonSamples(Sequence[dict[str, Any]]):
    """Objects of a JSON-lines file, or of a file that is one JSON array, parsed on access.

    For JSON lines, only the position of each line is kept in memory. A JSON array must be read whole and is kept as
    text. In both cases, no large list of objects is copied into every worker.

    Raises:
        ValueError: If the file cannot be read, or starts like a JSON array but is not a valid one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_file():  # a device such as /dev/zero has no end
            raise ValueError(f"{path}: cannot be read (not a regular file)")
        try:
            self._text = _array_as_lines(path) if _is_array(path) else None
            with self._open() as lines:
                self._spans = _spans(lines)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from None

    def _open(self) -> IO[bytes]:
        """Open the file anew on each call, because workers that share a file would share its position."""
        return self.path.open("rb") if self._text is None else io.BytesIO(self._text)

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: Any) -> Any:
        start, end = self._spans[index].tolist()
        with self._open() as lines:
            lines.seek(start)
            return self._parse(lines.read(end - start))

    def texts(self) -> Iterator[bytes]:
        """Yield every line as written, in one pass over the file."""
        with self._open() as lines:
            yield from (line for line in lines if line.strip())

    @staticmethod
    def _parse(line: bytes) -> dict[str, Any]:
        try:
            entry = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise malformed(f"not JSON ({one_line(error, 80)})") from None
        if not isinstance(entry, dict):
            raise malformed(f"expected an object, got {type(entry).__name__}")
        return entry

    def image_paths(self) -> Iterator[str]:
        """Yield the image paths of all readable samples, in order."""
        for text in self.texts():
            try:
                yield from _image_paths(self._parse(text))
            except SampleError:
                continue


def _is_array(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _array_as_lines(path: Path) -> bytes:
    try:
        # What is not UTF-8 becomes lone surrogates, for which the sample is skipped that has them.
        found = json.loads(path.read_text(encoding="utf-8-sig", errors="surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: starts like a JSON array but is not valid JSON ({one_line(error)})"
        ) from None
    return b"".join(json_line(entry).encode() for entry in found)


def _spans(lines: Iterable[bytes]) -> NDArray[np.int64]:
    """Compute the start and end of each line that is not blank, `[lines, 2]`."""
    spans, at = [], 0
    for line in lines:
        if line.strip():
            spans.append((at, at + len(line)))
        at += len(line)
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


class ConversationFile(Source):
    """InternVL JSONL or LLaVA JSON file, one `{"id", "image", "conversations": [{"from", "value"}, ...]}` per sample.

    A sample may have `messages` (`role`, `content`) instead, or a `question` with its `answer` or `answers`.

    Args:
        name: Name of the source.
        annotation: File with JSON lines or one JSON array.
        images: Folder that the `image` of a sample (a path or a list of paths) is relative to.
    """

    def __init__(self, name: str, annotation: Path, images: Path) -> None:
        self.name, self.annotation, self.images = name, annotation, images
        self._entries = JsonSamples(annotation)

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, index: int) -> Sample:
        entry = self._entries[index]
        images: list[Image.Image] = [LazyImage(self.images / path) for path in _image_paths(entry)]
        answers: list[str] = []
        turns = _turns(entry)
        if turns is None and "question" in entry:
            found = entry.get("answers", entry.get("answer"))
            given = found if isinstance(found, list) else [] if found is None else [found]
            answers = [read_answer(one) for one in given]
            messages = read_question(entry["question"], answers[0] if answers else None, len(images))
        else:
            messages = read_turns(turns, len(images))
        return Sample(self._id(entry, index), images, messages, "", self.name, answers)

    def origin(self, index: int) -> Origin:
        try:
            return Origin(self.name, self._id(self._entries[index], index), index)
        except SampleError:
            return Origin(self.name, f"{self.name}-{index}", index)

    def _id(self, entry: Mapping[str, Any], index: int) -> str:
        own = entry.get("id")
        return f"{self.name}-{index}" if own is None else clean_text(str(own))

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the bytes of the file and of the path and size in bytes of each image."""
        digest = hashlib.sha256()
        with self.annotation.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        folder = str(self.images)
        for path in self._entries.image_paths():
            digest.update(f"{path} {size_of_file(os.path.join(folder, path))}\n".encode())  # noqa: PTH118
        return digest.hexdigest()


def _image_paths(entry: Mapping[str, Any]) -> list[str]:
    if entry.get("video"):
        raise SampleError("video", "a video; only images are read")
    named = [key for key in IMAGE_KEYS if entry.get(key)]
    if len(named) > 1:
        raise malformed(f"images in {' and '.join(map(repr, named))}; give one of them")
    found = entry[named[0]] if named else images_of_parts(_turns(entry))
    paths = [_path_of(one) for one in (found if isinstance(found, list) else [found])]
    for path in paths:
        check_local(path)
    if not paths and (unread := [key for key, value in entry.items() if _names_image(key, value)]):
        raise malformed(f"an image in {unread[0]!r}, which is not read; put its path into 'image'")
    return paths


def _turns(entry: Mapping[str, Any]) -> Any:
    return entry.get("conversations", entry.get("messages"))


def _path_of(image: Any) -> Any:
    """Return the path of an image that is given as a path or as an object with one."""
    if isinstance(image, dict):
        return next((image[key] for key in ("path", "url", "image", "file_name") if image.get(key)), None)
    return image


def _names_image(key: str, value: Any) -> bool:
    """Return whether an entry of a sample seems to name an image file: by its key, or by the suffix of its value."""
    if key in ("id", "conversations", "messages") or not value:
        return False
    values = value if isinstance(value, list) else [value]
    if any(
        isinstance(one, str) and not one.strip().count(" ") and Path(one).suffix.lower() in IMAGE_SUFFIXES
        for one in values
    ):
        return True
    named = _LIKE_IMAGE.search(key) is not None and _ABOUT_IMAGE.search(key) is None
    return named and all(isinstance(one, str | dict) for one in values)


def open_internvl(meta: Path) -> list[tuple[Source, float]]:
    """Open the sources of an InternVL meta JSON with their weights: `{name: {root, annotation, repeat_time, ...}}`.

    `root` and `annotation` are relative to the meta file. `length` is not needed. `data_augment` and
    `max_dynamic_patch` have no counterpart here, because the processor does the tiling; a line is logged if they
    are set.

    Raises:
        ValueError: If the file is not an InternVL meta file, or an annotation cannot be read.
    """
    entries = _read_json(meta)
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{meta}: not an InternVL meta file; expected one JSON object of sources")
    found: list[tuple[Source, float]] = []
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not {"root", "annotation"} <= entry.keys():
            raise ValueError(f"{meta}: {name!r} needs `root` and `annotation`")
        for key in ("root", "annotation"):
            if not isinstance(entry[key], str) or has_surrogates(entry[key]) or "\0" in entry[key]:
                raise ValueError(f"{meta}: {name!r}: {key} is a path, got {entry[key]!r:.60}")
        if has_surrogates(name):
            raise ValueError(f"{meta}: the name {name!r} is not valid Unicode")
        unused = [key for key in ("data_augment", "max_dynamic_patch") if entry.get(key)]
        if unused:
            logger.info(f"{meta}: {name}: {' and '.join(unused)} not used, the processor tiles all alike")
        folder = meta.parent
        source = ConversationFile(name, folder / entry["annotation"], folder / entry["root"])
        weight = entry.get("repeat_time", 1)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"{meta}: {name}: repeat_time is a number, got {weight!r}")
        found.append((source, float(weight)))
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({one_line(error)})") from None
