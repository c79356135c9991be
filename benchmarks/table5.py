"""The paper's Table 5 on random weights: time of a page by model size, compress ratio and image set.

    python benchmarks/table5.py [--sizes 2B 8B] [--pages 4] [--rounds 5] [--batch-size 8] [--output FOLDER]

InternVL2-2B and InternVL2-8B in their shapes, in bfloat16 on a GPU (8B takes some 20 GB), timed by `fcot-vl bench`
itself; teacher and students share ViT and decoder, so every size is in memory once. Without a GPU, `--sizes small`
tries the same code. Time does not depend on what weights say, only on how many tokens are decoded, which is fixed.

The image sets are sizes of pages, not pages: a letter at 200 dpi for DocVQA, a chart of 800 x 557 for ChartQA, a column
of 1000 x 2600 for InfoVQA, and pages a little smaller. They lie within the sets' published ranges (593x294 to
5367x7184, 184x326 to 800x1796, 600x340 to 6250x9375; evalscope's documentation) and are otherwise our choice.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from shapes import SHAPES, processor_for, random_page, random_student, random_teacher

from fcot_vl.bench import Contender, bench
from fcot_vl.bench.table import by_image_set, wide_console
from fcot_vl.data.sample import Sample
from fcot_vl.stage import git_commit, hardware, now, versions

PAGES = {"DocVQA": (1700, 2200), "ChartQA": (800, 557), "InfoVQA": (1000, 2600)}  # width, height
RATIOS = (1, 2, 4)


def image_sets(pages: int) -> dict[str, list[Sample]]:
    """Pages of every image set, each 2% smaller than the one before."""
    return {
        name: [random_page(*(round(side * 0.98**i) for side in size), i) for i in range(pages)]
        for name, size in PAGES.items()
    }


def loader(size: str) -> Callable[[str], tuple[Any, Any]]:
    """Model and processor of "SIZE/RATIO"; the ratios share one backbone."""
    teacher = random_teacher(SHAPES[size])

    def load(name: str) -> tuple[Any, Any]:
        ratio = int(name.rpartition("/")[2])
        model = teacher if ratio == 1 else random_student(teacher, ratio)
        return model, processor_for(model)

    return load


def measure(
    size: str, folder: Path, pages: int, rounds: int, new_tokens: int, batch_size: int
) -> dict[str, Any]:
    """`bench.json` of one model size."""
    contenders = [
        Contender("teacher" if ratio == 1 else f"student {ratio}x", f"{size}/{ratio}") for ratio in RATIOS
    ]
    return bench(
        contenders,
        image_sets(pages),
        folder / size,
        pages=pages,
        new_tokens=new_tokens,
        rounds=rounds,
        batch_size=batch_size,
        load=loader(size),
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES), default=["2B", "8B"])
    parser.add_argument("--pages", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--output", type=Path, help="folder that keeps the bench of every size")
    given = parser.parse_args(arguments)
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        for size in given.sizes:
            results[size] = measure(
                size,
                given.output or Path(temporary),
                given.pages,
                given.rounds,
                given.new_tokens,
                given.batch_size,
            )
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    wide_console().print(by_image_set(results))
    about = {"commit": git_commit(), "hardware": hardware(), "versions": versions(), "date": now()}
    print(json.dumps({"benchmark": "table5", "sizes": results, **about}))


if __name__ == "__main__":
    main()
