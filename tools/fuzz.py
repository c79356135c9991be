"""Throw what strangers send at the loading code: records, images, checkpoints' JSON files and chat templates.

    python tools/fuzz.py --count 100000 --seed 0

An input may be read or refused. A fault is an error that no line of the package raised, an input that takes more than
ten seconds, or an attempt to run code, start a process, open a socket or write a file (seen by an audit hook). Every
input depends only on the seed, its kind and its number: `--kind images --only 123` repeats one, with its traceback.
docs/reliability.md has results.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
sys.path.insert(0, str(TOOLS))

import fuzz_inputs  # noqa: E402 - the folder of this file
import transformers  # noqa: E402

import fcot_vl  # noqa: E402
from fcot_vl.convert.checkpoint import Checkpoint  # noqa: E402
from fcot_vl.data.images import LazyImage, open_image  # noqa: E402
from fcot_vl.data.sources.open_data import open_data  # noqa: E402
from fcot_vl.data.tokenization import tokenize_prompt  # noqa: E402
from fcot_vl.inference.loading import load_for_inference  # noqa: E402
from fcot_vl.models.auto import load_processor, read_config  # noqa: E402
from fcot_vl.models.tiny import tiny_teacher_path  # noqa: E402
from fcot_vl.stages.inspect_checkpoint import inspect  # noqa: E402

PACKAGE = Path(fcot_vl.__file__).resolve().parent
SECONDS = 10  # longest time of one input
GIB = 12  # address space of this process, so that a size in a file cannot take all memory
FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.remove",
    "os.rename",
    "os.mkdir",
)
SOCKETS = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto")


class Hang(BaseException):
    """Raised inside an input that takes too long."""


def hang(*_: object) -> None:
    """End an input that takes too long."""
    raise Hang


class Watch:
    """Audit hook that records what loading must never do, while it is armed."""

    def __init__(self) -> None:
        self.armed, self.seen = False, list[str]()
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event in FORBIDDEN or event in SOCKETS:
            self.seen.append(f"{event} {str(arguments)[:200]}")
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            if arguments[0] != os.devnull:
                self.seen.append(f"write to {arguments[0]}")
        elif event == "exec":
            file = str(getattr(arguments[0], "co_filename", ""))
            # Modules of Python and of installed packages; Jinja runs templates, in transformers' sandbox.
            if not (
                file.startswith((sys.prefix, sys.base_prefix, str(PACKAGE), "<"))
                or file in ("", "<template>")
            ):
                self.seen.append(f"code of {file}")


def load_records(folder: Path, random_: random.Random, processor: Any) -> None:
    """Read every sample of a JSON or JSON-lines file, tokenize it, and decode its images."""
    path = fuzz_inputs.write_records(folder, random_)
    samples = open_data(path)
    samples.fingerprint()
    for index in range(len(samples)):
        samples.origin(index)
        with contextlib.suppress(Refused), refusing():
            sample = samples[index]
            tokenize_prompt(sample.messages, sample.images, processor)
            json.dumps(sample.messages, ensure_ascii=False).encode()


def load_image(folder: Path, random_: random.Random, processor: Any) -> None:
    """Open an image, at once and lazily."""
    data = fuzz_inputs.image_bytes(random_)
    with contextlib.suppress(Refused), refusing():
        LazyImage(data).load()
    image = open_image(data)
    assert image.mode == "RGB"


def describe(path: Path) -> None:
    """Run `inspect` without its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        inspect(path)


def load_checkpoint(folder: Path, random_: random.Random, processor: Any) -> None:
    """Load a checkpoint of which one JSON file is odd."""
    if random_.random() < 0.3:
        describe(fuzz_inputs.write_original(folder, random_))
        return
    kind = fuzz_inputs.write_checkpoint(folder, random_)
    for load in (read_config, load_processor, describe, Checkpoint):
        with contextlib.suppress(Refused), refusing():
            load(folder)
    if kind in ("generation_config.json", "model.safetensors.index.json") or random_.random() < 0.2:
        load_for_inference(folder)


def load_template(folder: Path, random_: random.Random, processor: Any) -> None:
    """Tokenize a conversation with an odd chat template."""
    kept = processor.chat_template
    processor.chat_template = fuzz_inputs.template(random_, kept)
    try:
        tokenize_prompt(*fuzz_inputs.conversation(random_), processor)
    finally:
        processor.chat_template = kept


KINDS: dict[str, Callable[[Path, random.Random, Any], None]] = {
    "records": load_records,
    "images": load_image,
    "checkpoints": load_checkpoint,
    "templates": load_template,
}


class Refused(Exception):
    """Raised in place of an error that a line of the package raised."""


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Turn an error that the package raised into `Refused`. Others pass."""
    try:
        yield
    except Refused:
        raise
    except (ValueError, FileNotFoundError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if not Path(last.filename).is_relative_to(PACKAGE):
            raise
        str(error).encode()
        raise Refused from None


def run(kind: str, count: int, seed: int, watch: Watch, only: int | None = None) -> dict[str, Any]:
    """Run the inputs of one kind, and return how many were read and refused, and the faults by name."""
    processor = load_processor(tiny_teacher_path())
    found: Counter[str] = Counter()
    faults: dict[str, list[int]] = {}
    longest = 0.0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fuzz_inputs.prepare(kind, folder, tiny_teacher_path())
        for index in range(count) if only is None else [only]:
            begun = time.monotonic()
            fault = one(
                kind, folder, random.Random(f"{seed}/{kind}/{index}"), processor, watch, only is not None
            )
            longest = max(longest, time.monotonic() - begun)
            found["read" if fault is None else "refused" if fault == "" else "faults"] += 1
            if fault:
                faults.setdefault(fault, []).append(index)
    seconds = round(time.monotonic() - started, 1)
    return {
        "kind": kind,
        "seed": seed,
        "inputs": found.total(),
        **found,
        "seconds": seconds,
        "longest": round(longest, 2),
        "named": {fault: indices[:5] for fault, indices in faults.items()},
    }


def one(
    kind: str, folder: Path, random_: random.Random, processor: Any, watch: Watch, loud: bool = False
) -> str | None:
    """Run one input. Return None if it was read, an empty text if it was refused, else the fault."""
    watch.seen.clear()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    fault: str | None = None
    try:
        with contextlib.redirect_stdout(io.StringIO()), refusing():
            fuzz_inputs.WATCH = watch
            watch.armed = True
            KINDS[kind](folder, random_, processor)
    except Refused:
        fault = ""
    except Hang:
        fault = f"more than {SECONDS} s"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        if loud:
            traceback.print_exc()
    finally:
        watch.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
    return watch.seen[0] if watch.seen else fault


def main() -> None:
    """Run the kinds that are asked for, print a line of JSON for each, and fail if there is a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000, help="number of inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="default: all")
    parser.add_argument("--only", type=int, help="number of the only input to run")
    asked = parser.parse_args()

    resource.setrlimit(resource.RLIMIT_AS, (GIB * 2**30, GIB * 2**30))
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    sys.dont_write_bytecode = True

    signal.signal(signal.SIGALRM, hang)
    watch = Watch()
    failed = False
    for kind in asked.kind or KINDS:
        result = run(kind, asked.count, asked.seed, watch, asked.only)
        failed |= "faults" in result
        print(json.dumps(result), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
