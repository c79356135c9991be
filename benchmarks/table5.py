"""The paper's Table 5 on random weights: time of a page by model size, compress ratio and image set.

    python benchmarks/table5.py [--sizes 2B 8B] [--pages 4] [--rounds 5] [--batch-size 8] [--output FOLDER]
    python benchmarks/table5.py --count

InternVL2-2B and InternVL2-8B in their shapes, in bfloat16 on a GPU (8B takes some 20 GB), timed by `fcot-vl bench`
itself; teacher and students share ViT and decoder, so every size is in memory once. Without a GPU, `--sizes small`
tries the same code. Time does not depend on the weights, only on the number of decoded tokens, which is fixed.

The image sets are page sizes, not real pages: a letter at 200 dpi for DocVQA, a chart of 800 x 557 for ChartQA, a
column of 1000 x 2600 for InfoVQA, and pages a little smaller. They lie within the sets' published ranges (593x294 to
5367x7184, 184x326 to 800x1796, 600x340 to 6250x9375; evalscope's documentation) and are otherwise our choice. The last
line is JSON.

`--count` runs nothing: it counts the operations and bytes of every cell from the configurations (paper eq. 6-7, with
the ViT), which says what a device could gain at most, and how much of what is left is the ViT.
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
from rich.table import Table
from shapes import SHAPES, processor_for, random_page, random_student, random_teacher

from fcot_vl.bench.measure import Candidate
from fcot_vl.bench.tables import by_image_set
from fcot_vl.common.console import show
from fcot_vl.common.provenance import git_commit, now, provenance, versions
from fcot_vl.data.dataset import Sample
from fcot_vl.data.tokenization import tokenize_question
from fcot_vl.models.flops import cache_bytes, decode_weight_bytes, prefill_flops, projector_flops, vit_flops
from fcot_vl.stages.bench import bench

PAGES = {"DocVQA": (1700, 2200), "ChartQA": (800, 557), "InfoVQA": (1000, 2600)}  # width, height
RATIOS = (1, 2, 4)


def image_sets(pages: int) -> dict[str, list[Sample]]:
    """Return the pages of every image set, each 2% smaller than the one before."""
    return {
        name: [random_page(*(round(side * 0.98**i) for side in size), i) for i in range(pages)]
        for name, size in PAGES.items()
    }


def loader(size: str) -> Callable[[str], tuple[Any, Any]]:
    """Return a function that loads model and processor of "SIZE/RATIO"; the ratios share one backbone."""
    teacher = random_teacher(SHAPES[size])

    def load(name: str) -> tuple[Any, Any]:
        ratio = int(name.rpartition("/")[2])
        model = teacher if ratio == 1 else random_student(teacher, ratio)
        return model, processor_for(model)

    return load


def measure(
    size: str, folder: Path, pages: int, rounds: int, new_tokens: int, batch_size: int
) -> dict[str, Any]:
    """Return `bench.json` of one model size."""
    candidates = [
        Candidate("teacher" if ratio == 1 else f"student {ratio}x", f"{size}/{ratio}") for ratio in RATIOS
    ]
    return bench(
        candidates,
        image_sets(pages),
        folder / size,
        pages=pages,
        new_tokens=new_tokens,
        rounds=rounds,
        batch_size=batch_size,
        load=loader(size),
    )


def count(size: str, new_tokens: int) -> list[dict[str, Any]]:
    """Count operations and bytes of one page by compress ratio and image set; no model is created or run."""
    teacher = random_teacher(SHAPES[size], "meta")
    rows: list[dict[str, Any]] = []
    for name, (page,) in image_sets(1).items():
        for ratio in RATIOS:
            model = teacher if ratio == 1 else random_student(teacher, ratio)
            processor = processor_for(model)
            prompt = tokenize_question(page.messages[0]["content"], page.images, processor)
            length, visual = len(prompt.expand()[0]), sum(prompt.counts[1])
            text, n_layers = model.config.text_config, model.config.text_config.num_hidden_layers
            tiles = visual // processor.image_seq_length
            vit = vit_flops(model.config.vision_config, tiles)
            prefill = prefill_flops(text, [length] * n_layers)
            projector = projector_flops(model, tiles)
            cached = [length + new_tokens / 2] * n_layers  # halfway through the answer
            rows.append(
                {
                    "set": name,
                    "ratio": ratio,
                    "tiles": tiles,
                    "visual_tokens": visual,
                    "flops_vit": vit,
                    "flops_projector": projector,
                    "flops_prefill": prefill,
                    "flops_first_token": vit + projector + prefill,
                    "decode_bytes": decode_weight_bytes(model) + cache_bytes(text, cached, 2),
                }
            )
    return rows


def counted_table(sizes: dict[str, list[dict[str, Any]]]) -> Table:
    """Return a table with one row per model size, image set and ratio, with the reduction from ratio 1."""
    table = Table(
        "", "set", "gone", "tokens", title="operations to the first token, bytes of a decoding step"
    )
    for name in ("ViT", "projector", "prefill", "ViT's share", "fewer", "GB a step", "fewer"):
        table.add_column(name, justify="right")
    for size, rows in sizes.items():
        for row in rows:
            first = next(one for one in rows if one["set"] == row["set"])
            table.add_row(
                size,
                row["set"],
                f"{1 - 1 / row['ratio']:.0%}",
                f"{row['visual_tokens']:,}",
                *(f"{row[f'flops_{part}'] / 1e12:.2f}" for part in ("vit", "projector", "prefill")),
                f"{row['flops_vit'] / row['flops_first_token']:.0%}",
                f"{first['flops_first_token'] / row['flops_first_token']:.2f}x",
                f"{row['decode_bytes'] / 1e9:.2f}",
                f"{first['decode_bytes'] / row['decode_bytes']:.2f}x",
            )
    return table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES), default=["2B", "8B"])
    parser.add_argument("--pages", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--output", type=Path, help="folder that keeps the bench of every size")
    parser.add_argument("--count", action="store_true", help="count operations and bytes instead of timing")
    given = parser.parse_args(arguments)
    if given.count:
        counted = {size: count(size, given.new_tokens) for size in given.sizes}
        show(counted_table(counted))
        print(json.dumps({"benchmark": "table5", "counted": counted, "commit": git_commit(), "date": now()}))
        return
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
    show(by_image_set(results))
    about = {**provenance(), "versions": versions()}
    print(json.dumps({"benchmark": "table5", "sizes": results, **about}))


if __name__ == "__main__":
    main()
