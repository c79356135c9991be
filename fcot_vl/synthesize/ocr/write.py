"""Stage `synthesize` for OCR-like pages. Shards are made in parallel, each in one process.

A shard is the unit of work and of resumption. Pages never travel between processes, and existing shards are kept.
Sample i is number ``i // len(kinds)`` of kind ``i % len(kinds)``, whatever the number of shards and workers.
"""

from __future__ import annotations

import importlib.metadata
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcot_vl.common.progress import progress_bar
from fcot_vl.common.stage import StageError, open_stage
from fcot_vl.data.dataset import Sample, write_shard
from fcot_vl.synthesize.ocr import KINDS, Sources, make_sample
from fcot_vl.synthesize.ocr.content import INSTALL, read_corpus
from fcot_vl.synthesize.ocr.fonts import families
from fcot_vl.synthesize.ocr.internvl import write_internvl
from fcot_vl.synthesize.ocr.read_html import files as html_files
from fcot_vl.synthesize.ocr.render import renderer

logger = logging.getLogger(__name__)

_SHARD_SIZE = 200
_LOOK = 0.5  # seconds between two reads of the workers' counter


@dataclass(frozen=True)
class Shard:
    """Samples `first` to `last` (exclusive) of a run, and the file that stores them."""

    path: Path
    first: int
    last: int
    kinds: tuple[str, ...]
    seed: int
    sources: Sources

    def samples(self) -> Iterator[Sample]:
        """Yield the samples in order, and count each when it is made."""
        for i in range(self.first, self.last):
            yield make_sample(self.kinds[i % len(self.kinds)], i // len(self.kinds), self.seed, self.sources)
            _count()


def synthesize_ocr(
    folder: Path,
    kinds: list[str],
    records: int,
    seed: int = 0,
    workers: int = 1,
    sources: Sources | None = None,
    internvl: bool = False,
    shard_size: int = _SHARD_SIZE,
) -> Path:
    """Write `records` OCR-like samples of alternating `kinds` to ``folder/*.parquet``, and return the folder.

    Args:
        workers: Number of processes that make shards.
        sources: Texts and HTML files of the user. Default: text from Faker.
        internvl: Also write InternVL's JSONL, images and meta file to ``folder/internvl``.
        shard_size: Number of samples per Parquet file.

    Raises:
        ValueError: If a kind is unknown, no sample is requested, or a library, font or source (named) is missing.
        StageError: If the folder belongs to another stage or to other settings, fonts or sources, or if a worker died.
    """
    sources = _checked(kinds, records, shard_size, workers, sources or Sources())
    settings = {"kinds": kinds, "records": records, "shard_size": shard_size, "internvl": internvl}
    stage = open_stage(folder, "synthesize", settings, _inputs(kinds, sources), seed)
    if stage.done:
        logger.info(f"synthesize: {folder} is finished, {records} samples")
        return folder
    for kind in kinds[:records]:  # raises here in one line, and not in a worker, if something is missing
        make_sample(kind, 0, seed, sources)
    shards = [
        Shard(
            folder / f"pages-{number:05d}.parquet",
            first,
            min(first + shard_size, records),
            tuple(kinds),
            seed,
            sources,
        )
        for number, first in enumerate(range(0, records, shard_size))
    ]
    logger.info(f"synthesize: {records} pages of {', '.join(kinds)}, seed {seed} -> {folder}")
    _make(shards, workers)
    if internvl:
        write_internvl([shard.path for shard in shards], folder / "internvl", folder.resolve().name)
    stage.finish({"records": records, "shards": len(shards)})
    return folder


def _checked(kinds: list[str], records: int, shard_size: int, workers: int, sources: Sources) -> Sources:
    """Check the arguments, and return the sources with absolute paths.

    Raises:
        ValueError: If the arguments are invalid.
    """
    if not kinds or any(kind not in KINDS for kind in kinds):
        raise ValueError(f"unknown kind of page among {kinds}: choose from {', '.join(KINDS)}")
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"{kinds}: a kind is named twice; name each once")
    if records < 1 or shard_size < 1 or workers < 1:
        raise ValueError(
            f"{records} samples in shards of {shard_size} by {workers} workers: each number must be at least 1"
        )
    for flag, source in (("--corpus", sources.corpus), ("--html", sources.html)):
        if source is not None and not source.is_dir():
            raise ValueError(f"{flag} {source}: no such folder")
    return Sources(*(path and path.resolve() for path in (sources.corpus, sources.html)))


def _inputs(kinds: list[str], sources: Sources) -> dict[str, str]:
    """Return the inputs that determine the samples in addition to the settings: fonts and content.

    Raises:
        ValueError: If something is missing.
    """
    try:
        found = {"faker": importlib.metadata.version("faker"), "pillow": importlib.metadata.version("pillow")}
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(f"OCR-like pages need {error.name}: {INSTALL}") from None
    names = {family.name for kind in kinds for family in families(KINDS[kind].role, KINDS[kind].language)}
    found["fonts"] = ", ".join(sorted(names))
    if sources.corpus is not None:
        files = [size for sizes in read_corpus(sources.corpus).files.values() for _, size in sizes]
        found["corpus"] = f"{sources.corpus}: {len(files)} files, {sum(files)} bytes"
    if {"web", "web_zh"} & set(kinds):
        found["renderer"] = renderer()
    if sources.html is not None:
        pages = [path for paths in html_files(sources.html).values() for path in paths]
        found["html"] = f"{sources.html}: {len(pages)} files, {sum(p.stat().st_size for p in pages)} bytes"
    return found


def _make(shards: list[Shard], workers: int) -> None:
    """Write the missing shards, `workers` at a time."""
    missing = [shard for shard in shards if not shard.path.exists()]
    done = sum(shard.last - shard.first for shard in shards) - sum(s.last - s.first for s in missing)
    workers = min(workers, len(missing))
    with progress_bar() as progress:
        bar = progress.add_task("pages", total=done + sum(s.last - s.first for s in missing), completed=done)
        if workers <= 1:
            for shard in missing:
                _write(shard)
                progress.advance(bar, shard.last - shard.first)
            return
        context = _context()
        counter = context.Value("q", 0)
        pool = ProcessPoolExecutor(workers, context, _begin, (counter,))
        try:
            waiting: set[Future[None]] = {pool.submit(_write, shard) for shard in missing}
            while waiting:
                finished, waiting = wait(waiting, _LOOK, FIRST_EXCEPTION)
                progress.update(bar, completed=done + counter.value)
                for future in finished:
                    future.result()
        except BrokenProcessPool:
            raise StageError(
                "a worker died (out of memory, or killed); rerun the same command to resume, "
                "with fewer --workers if needed"
            ) from None
        finally:
            _end(pool)


def _context() -> Any:
    """Return the context that starts workers without a plain fork of this process.

    A fork would copy the locks of the threads in their current state. With a fork server, everything is imported once.
    Where none is available, every worker imports it.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _end(pool: ProcessPoolExecutor) -> None:
    """Stop all workers. After an error or Ctrl-C, the unfinished shards are abandoned."""
    pool.shutdown(wait=False, cancel_futures=True)
    for process in multiprocessing.active_children():
        process.terminate()
        process.join()


_counter: Any = None


def _begin(counter: Any) -> None:
    """Initialise a worker: count pages into `counter`, and exit silently on Ctrl-C or when the parent is gone."""
    global _counter
    _counter = counter
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            multiprocessing.connection.wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _count() -> None:
    if _counter is not None:
        with _counter.get_lock():
            _counter.value += 1


def _write(shard: Shard) -> None:
    write_shard(shard.path, shard.samples(), "JPEG")
