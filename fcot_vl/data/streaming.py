"""Streamed dataset, saved as Parquet shards while it is read.

A stream has no length and cannot be rewound. Planning batches needs the length of every sample before the first step,
and a resumed run must see the same samples as the interrupted one. The first samples of a stream are therefore written
to a stage folder once, and training reads from there.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fcot_vl.common.files import read_rows, write_rows
from fcot_vl.common.progress import progress_bar
from fcot_vl.common.stage import open_stage
from fcot_vl.data.dataset import Origin, Sample, SampleFolder, write_shard
from fcot_vl.data.skip_log import FILE as SKIPPED
from fcot_vl.data.skip_log import skipped_row, write_skipped
from fcot_vl.data.sources.hf_datasets import RowReader

logger = logging.getLogger(__name__)

SHARD = 500  # rows of the stream per Parquet file


def cache_stream(
    folder: Path, stream: Any, reader: RowReader, n_rows: int, settings: dict[str, Any], max_skipped: float
) -> SampleFolder:
    """Write those of the first `n_rows` rows of a stream that are not yet in `folder`, and open the folder.

    Shard k has the usable samples of rows 500 k to 500 k + 499. An interrupted pass resumes after the last complete
    shard. Unusable rows are listed in `skipped.jsonl`.

    Args:
        stream: `IterableDataset` with a `skip` method.
        settings: Settings that determine the samples. A folder with other settings is refused.
        max_skipped: Maximum share of unusable samples.

    Raises:
        StageError: If the folder has other content.
        ValueError: If the stream is empty, or too many of its samples are unusable.
    """
    asked = {**settings, "records": n_rows, "columns": reader.columns}
    stage = open_stage(folder, "stream", asked, {}, wait=True)  # runs and processes may share it
    if stage.done:
        return SampleFolder(folder)
    logger.info(f"stream: {n_rows:,} samples of {reader.name} -> {folder}")
    if stream.column_names is not None:
        reader.check(stream.column_names)
    stream = reader.undecoded(stream)
    with progress_bar() as progress:
        bar = progress.add_task("samples", total=n_rows)
        for first in range(0, n_rows, SHARD):
            last = min(first + SHARD, n_rows)
            if not _shard(folder, first).exists():
                # The stream does the skipping; for Parquet on a server, it skips whole files unread.
                rows = list(itertools.islice(stream.skip(first), last - first))
                _write(folder, first, rows, reader)
                _stop_above(folder, n_rows, max_skipped)
                if len(rows) < last - first:
                    break
            progress.update(bar, completed=last)
    skipped = _collect(folder)
    samples = SampleFolder(folder)
    if not len(samples):
        raise ValueError(f"{folder}: the stream of {reader.name} has no sample that can be used")
    stage.finish({"records": len(samples), "skipped": len(skipped)})
    return samples


def _shard(folder: Path, first: int) -> Path:
    return folder / f"stream-{first:08d}.parquet"


def _write(folder: Path, first: int, rows: list[dict[str, Any]], reader: RowReader) -> None:
    skipped: list[dict[str, Any]] = []

    def samples() -> Iterator[Sample]:
        for index, row in enumerate(rows, first):
            try:
                sample = reader.sample(row, index)
                for image in sample.images:
                    image.load()
            except (ValueError, OSError, SyntaxError) as error:
                skipped.append(skipped_row(Origin(reader.name, reader.id(row, index), index), error))
                continue
            yield sample

    made = list(samples())
    write_rows(_shard(folder, first).with_suffix(".jsonl"), skipped)
    write_shard(_shard(folder, first), made)  # last, so that an existing shard is always complete


def _collect(folder: Path) -> list[dict[str, Any]]:
    """Collect all skipped samples so far into one file and return their rows."""
    rows = [row for path in sorted(folder.glob("stream-*.jsonl")) for row in read_rows(path)]
    write_skipped(folder, rows)
    return rows


def _stop_above(folder: Path, n_rows: int, max_skipped: float) -> None:
    skipped = _collect(folder)
    if len(skipped) > max_skipped * n_rows:
        raise ValueError(
            f"{folder / SKIPPED}: {len(skipped):,} of {n_rows:,} samples cannot be used, more than max_skipped "
            f"{max_skipped}; the last: {skipped[-1]['reason']}"
        )
