"""Questions, answers and a server's replies for the tests of `label`, `rewrite` and `cot`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from scripted_server import ScriptedServer, question_of
from source_files import picture, record

from fcot_vl.data.dataset import SampleFolder
from fcot_vl.stages.cot import CotConfig, cot
from fcot_vl.stages.label import LabelConfig, label
from fcot_vl.stages.rewrite import RewriteConfig, rewrite

VERBS = ("label", "rewrite", "cot")


def sums_file(folder: Path, records: int = 6) -> Path:
    """A LLaVA JSON: about each picture two questions, what k plus 1 and k plus 2 are, k from 10 on."""
    found = []
    for k in range(10, 10 + records):
        picture(folder / "images" / f"{k}.png", seed=k)
        turns = (f"<image>\nWhat is {k} plus 1?", f"{k + 1}", f"What is {k} plus 2?", f"{k + 2}")
        found.append(record(f"r{k}", f"images/{k}.png", *turns))
    path = folder / "sums.json"
    path.write_text(json.dumps(found))
    return path


def reply(body: dict[str, Any]) -> str:
    """Right and wrong answers, the same for the same request: a rewrite without a seed, else a worked answer."""
    text = question_of(body)
    k, plus = map(int, re.findall(r"What is (\d+) plus (\d+)\?", text)[-1])
    if "seed" not in body:  # every third rewrite is wrong
        return f"If you add them, the result is {k + plus + (k % 3 == 0)}."
    ways = [
        f"{k}+{plus}={k + plus}. Answer: {k + plus}",
        f"The page shows {k} and {plus} below each other, so I add them up: {k}+{plus}={k + plus}.\nAnswer: {k + plus}",
        f"{k}+{plus}={k + plus + 1}. Answer: {k + plus + 1}",
        f"{k + plus}",
        f"{k} + {plus} = {k + plus}. Answer: {k + plus}",
    ]
    return ways[body["seed"] % len(ways)]


def run(verb: str, server: ScriptedServer, data: Path, output: Path, **settings: Any) -> Path:
    """A verb on data, by a server."""
    asking: dict[str, Any] = {"endpoint": server.url, "model": "big", "requests": 3, **settings}
    match verb:
        case "label":
            return label(LabelConfig(output, str(data), **asking))
        case "rewrite":
            return rewrite(RewriteConfig(output, str(data), **asking))
    return cot(CotConfig(output, str(data), **{"samples": 4, **asking}))


def rows(folder: Path, verb: str) -> list[dict[str, Any]]:
    """The rows of all shards."""
    paths = sorted(folder.glob(f"{verb}-*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    """Everything a run wrote but when it was, and what it was asked to be."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "stage.json"}


def contents(folder: Path) -> dict[str, list[str]]:
    """The conversations by record."""
    return {sample.id: [m["content"] for m in sample.messages] for sample in SampleFolder(folder)}
