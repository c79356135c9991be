"""Pages per second, CPU time and memory of `fcot-vl synthesize --kind`, kind by kind.

    python benchmarks/synthesize.py [--kinds text table] [--pages 600] [--workers 2] [--output FILE]

For each kind: the whole stage, including the start of the workers (the start of the fork server, which imports
everything once, is `start_seconds`); and one warm process alone, for CPU time per page (drawing, degrading, encoding,
writing, and the time of a browser). Most text pages are A4 at 150 dpi. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from fcot_vl.common.files import write_json
from fcot_vl.common.provenance import provenance, versions
from fcot_vl.data.dataset import SampleFolder, write_shard
from fcot_vl.synthesize.ocr import KINDS, make_sample
from fcot_vl.synthesize.ocr.write import synthesize_ocr


def cpu_seconds() -> float:
    """Return user and system time of this process and of the finished processes that it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def alone(kind: str, pages: int, folder: Path) -> dict[str, float]:
    """Return CPU milliseconds and kilobytes per page in this process, after a warm-up with a tenth as many pages."""
    for index in range(pages, pages + pages // 10 + 1):
        make_sample(kind, index)
    started = cpu_seconds()
    write_shard(folder / "alone.parquet", (make_sample(kind, index) for index in range(pages)), "JPEG")
    used = cpu_seconds() - started
    size = (folder / "alone.parquet").stat().st_size
    return {"cpu_ms_per_page": round(1000 * used / pages, 1), "kb_per_page": round(size / pages / 1000, 1)}


class Peak(threading.Thread):
    """Thread that measures the peak resident memory (MiB) of any worker, ten times per second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib, self.over = 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                try:
                    self.mib = max(self.mib, process.memory_info().rss / 2**20)
                except psutil.NoSuchProcess:
                    continue


def stage(kind: str, pages: int, workers: int, folder: Path) -> float:
    """Wall seconds of the stage with two shards a worker."""
    started = time.monotonic()
    shard = max(1, pages // (2 * workers)) if pages > workers else 1
    synthesize_ocr(folder, [kind], pages, workers=workers, shard_size=shard)
    seconds = time.monotonic() - started
    assert len(SampleFolder(folder)) == pages
    return seconds


def measure(kind: str, pages: int, workers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        peak = Peak()
        peak.start()
        wall = stage(kind, pages, workers, folder / "pages")
        peak.over.set()
        figures: dict[str, Any] = {
            "pages": pages,
            "wall_seconds": round(wall, 2),
            "pages_per_second": round(pages / wall, 1),
            "peak_mib_of_a_worker": round(peak.mib),
        }
        return figures | alone(kind, max(20, pages // 6), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--pages", type=int, default=600)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        start = stage(arguments.kinds[0], arguments.workers, arguments.workers, Path(temporary) / "start")
    found = {}
    for kind in arguments.kinds:
        found[kind] = measure(kind, arguments.pages, arguments.workers)
        print(f"{kind}: {found[kind]}", file=sys.stderr, flush=True)
    result = {
        "benchmark": "synthesize",
        "command": "python benchmarks/synthesize.py "
        + " ".join(["--kinds", *arguments.kinds, "--pages", str(arguments.pages)])
        + f" --workers {arguments.workers}",
        "start_seconds": round(start, 2),
        "kinds": found,
        **provenance(),
        "versions": versions(),
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
