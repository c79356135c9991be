"""Tables of `bench.json` for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from fcot_vl.bench.measure import PARTS


def tables(result: dict[str, Any]) -> list[Table]:
    """Return the tables of a result: the parts of a page and, where present, the bounds, image sets and batch."""
    found = [_parts(result)]
    if len(result["contenders"]) > 1:
        found.append(_bounds(result))
    if len(result["sets"]) > 1:
        found.append(by_image_set({"": result}))
    if result["batch_size"] is not None:
        found.append(_batch(result))
    return found


def by_image_set(results: Mapping[str, dict[str, Any]]) -> Table:
    """Build a table like Table 5 of the paper: one row per model size and compress ratio, times per image set.

    Each image set has a column for the time and one for the speed-up. The time is the median end-to-end time of one
    page in ms. As in the paper, the compress ratio is the share of visual tokens that is removed.

    Args:
        results: Content of `bench.json` by name of the model size. All results must have the same image sets.
    """
    sets = [one["name"] for one in next(iter(results.values()))["sets"]]
    table = _table("time of a page in ms, and how much faster than the first", "", "compress ratio")
    for name in sets:
        table.add_column(name, justify="right")
        table.add_column("faster", justify="right")
    for size, result in results.items():
        before = result["contenders"][0]["visual_tokens_nominal"]
        for number, row in enumerate(result["contenders"]):
            cells = []
            for one in result["sets"]:
                here = one["contenders"][number]
                cells += [_ms(here["seconds"]["end_to_end"]), _times(here["faster"]["end_to_end"])]
            table.add_row(
                f"{size} {row['name']}".strip(), f"{1 - row['visual_tokens_nominal'] / before:.0%}", *cells
            )
    return table


def _parts(result: dict[str, Any]) -> Table:
    columns = (
        "tokens",
        "tiles",
        "ViT",
        "proj.",
        "prefill",
        "TTFT",
        "tok/s",
        "all",
        "faster",
        "KV kB",
        "GFLOP",
    )
    table = _table(
        f"{result['pages']} pages, {result['rounds']} rounds, {result['new_tokens']} new tokens, "
        f"{result['device']} {result['dtype']}, {result['threads']} threads; medians, times in ms",
        "",
        *columns,
    )
    for row in result["contenders"]:
        ms = {part: _ms(row["seconds"][part]) for part in PARTS}
        nominal, mean = row["visual_tokens_nominal"], row["visual_tokens_layer_mean"]
        flops = row["flops_vit"] + row["flops_projector"] + row["flops_prefill"]
        table.add_row(
            row["name"],
            f"{nominal:.0f}" if nominal == mean else f"{nominal:.0f}/{mean:.0f}",
            f"{row['tiles']:.1f}",
            *(ms[part] for part in ("vit", "projector", "prefill", "ttft")),
            f"{row['decode_tokens_per_second']['median']:.0f}",
            ms["end_to_end"],
            _times(row["faster"]["end_to_end"]),
            f"{row['kv_cache_bytes'] / 1e3:.0f}",
            f"{flops / 1e9:.2f}",
        )
    return table


def _bounds(result: dict[str, Any]) -> Table:
    columns = ("prefill", "share", "TTFT", "share", "decode", "share", "all", "share", "decode floor ms")
    table = _table("how much faster arithmetic and bytes allow, and the measured share of it", "", *columns)
    for row in result["contenders"]:
        cells = [""] * 8
        if row["bound"] is not None:
            both = [
                (_times(part["faster"]), f"{part['share']['median']:.0%}") for part in row["bound"].values()
            ]
            cells = [cell for pair in both for cell in pair]
        table.add_row(row["name"], *cells, f"{1e3 * row['decode_floor_seconds']:.2f}")
    return table


def _batch(result: dict[str, Any]) -> Table:
    columns = ("pages/s", "faster", "tok/s", "tok/s decoding", "TTFT", "KV MB", "peak MB")
    table = _table(f"{result['batch_size']} pages at a time", "", *columns)
    for row in result["contenders"]:
        batch = row["batch"]
        peak = batch.get("peak_extra_bytes")
        table.add_row(
            row["name"],
            f"{batch['pages_per_second']['median']:.2f}",
            _times(batch["faster"]["end_to_end"]),
            f"{batch['tokens_per_second']['median']:.0f}",
            f"{batch['decode_tokens_per_second']['median']:.0f}",
            _ms(batch["seconds"]["ttft"]),
            f"{batch['kv_cache_bytes'] / 1e6:.1f}",
            "" if peak is None else f"{peak / 1e6:.0f}",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _ms(spread: dict[str, float]) -> str:
    return f"{1e3 * spread['median']:.1f}"


def _times(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f}x"
