"""Questions and answers of a user's own file as samples to score: JSON, JSON lines, or a mixture YAML."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from fcot_vl.data.chat_format import SampleError
from fcot_vl.data.dataset import Origin, Sample, Samples
from fcot_vl.data.sources.base import origin_of
from fcot_vl.data.sources.open_data import open_data

OWN_FILES = (".json", ".jsonl", ".yaml", ".yml")
METRIC = "anls"  # of a sample that names none: 1 is right, and small misspellings cost little
TASK = "own"


class OwnSamples(Samples):
    """Samples of any data file, scored by ANLS against their first answer unless they say otherwise.

    Args:
        path: File that `open_data` opens.
        limit: Maximum number of samples, from the start.

    Raises:
        ValueError: If the file cannot be read.
    """

    def __init__(self, path: Path, limit: int | None = None) -> None:
        self.path, self._samples = path, open_data(path)
        self._length = len(self._samples) if limit is None else min(limit, len(self._samples))

    def __len__(self) -> int:
        return self._length

    def read(self, index: int) -> Sample:
        sample: Sample = self._samples[index]
        said: Sequence[str] = [turn["content"] for turn in sample.messages if turn["role"] == "assistant"]
        sample.answers = sample.answers or list(said[:1])
        if not sample.answers:
            raise SampleError("without an answer", "no accepted answer and no answer in the conversation")
        if not sample.images:
            raise SampleError("without an image", "text only: a question is asked about an image")
        sample.id = self.origin(index).id
        sample.metric, sample.task = sample.metric or METRIC, sample.task or TASK
        return sample

    def origin(self, index: int) -> Origin:
        """Return the origin. Its id begins with the index, because ids in conversation files need not be distinct."""
        origin = origin_of(self._samples, index)
        return Origin(origin.source, f"{index}:{origin.id}", index)

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the file's fingerprint and the number of samples."""
        return hashlib.sha256(f"{self._samples.fingerprint()} {len(self)}".encode()).hexdigest()
