"""Base class of all sources, and helpers that they share.

A source is a map-style sequence of `Sample`. It reads the text of a sample and the header of its images; pixels are
decoded on first use. Accessing an unusable sample raises an error, so that a run can skip it and report its `Origin`.
Opening a source raises only for errors that make the whole source unusable. No URL is ever opened: an image is a local
file or is embedded in the data.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fcot_vl.common.text import has_surrogates
from fcot_vl.data.chat_format import SampleError, malformed
from fcot_vl.data.dataset import Origin, Sample, Samples


class Source(Samples):
    """Samples under one name."""

    name: str


def origin_of(samples: Sequence[Sample], index: int) -> Origin:
    """Return the origin of a sample of any sequence. For a plain list, the origin only has an index."""
    if hasattr(samples, "origin"):
        origin: Origin = samples.origin(index)
        return origin
    return Origin("", str(index), index)


def check_local(path: Any) -> None:
    """Refuse anything that is not the path of a local file, so that data files cannot trigger requests to URLs."""
    if not isinstance(path, str) or not path:
        raise malformed(f"an image must be a path, got {type(path).__name__}")
    if has_surrogates(path) or "\0" in path:
        raise malformed(f"an image's path is not valid Unicode: {path[:60]!r}")
    if "://" in path or path.startswith("data:"):
        raise SampleError("image by URL", f"{path[:60]}: only local files are opened; download it first")


def size_of_file(path: str | Path) -> int:
    """Return the size of a file in bytes, or -1 if it does not exist.

    Paths are strings here: with millions of files, building a `Path` takes longer than the lookup.
    """
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except (OSError, ValueError):
        return -1
