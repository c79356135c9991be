"""Write the trained teacher into the package: bfloat16 safetensors, configuration and model card.

    python tools/tiny_teacher/export.py runs/teacher

Last step of `tools/tiny_teacher`. Reads `state.pt` and `log.jsonl` of the training folder; the scores in the card come
from the evaluation stage's `result.json` given with ``--result`` (none given, none printed).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from train import TINY, build
from transformers import AutoTokenizer

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
tags: [internvl, ocr, tiny]
---
# The embedded teacher of FCoT-VL

A document reader of InternVL architecture with {parameters:.2f} M parameters, made to be compressed: it reads MiniDoc
pages (fixed-pitch print on a 7x14-pixel grid, 224-pixel tiles, 64 visual tokens a tile) and nothing else. It does not
read photographs, scans, handwriting or proportional fonts.

- Vision: InternViT shape, width 128, 4 layers. Decoder: Qwen2 shape, width 256, 4 layers, character-level vocabulary
  of {vocabulary}. Projector: InternVL's.
- Made by `tools/tiny_teacher` from seed 0 with {pages:,} MiniDoc training pages in {minutes:.0f} minutes on 2 CPU cores
  (see that folder's README).
- Data: synthetic only; the pages, words and questions come from `fcot_vl.synthesize.minidoc`.

{scores}
"""


def scores(result: Path | None) -> str:
    """The card's table of scores, from an evaluation's result.json."""
    if result is None:
        return "Scores: run `fcot-vl evaluate` on the test split."
    record = json.loads(result.read_text())
    rows = [f"| {task} | {v['n']} | {100 * v['score']:.1f} |" for task, v in record["tasks"].items()]
    head = f"Scores on the MiniDoc {record['split']} split (data {record['data_hash'][:12]}, greedy decoding):\n\n"
    return head + "| task | n | score |\n|---|---|---|\n" + "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=TINY)
    parser.add_argument("--result", type=Path)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    model = build(tokenizer)
    state = torch.load(args.folder / "state.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    model = model.to(torch.bfloat16)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(args.out)
    log = [json.loads(line) for line in (args.folder / "log.jsonl").read_text().splitlines()]
    seconds = sum(
        b["seconds"]
        for b, n in zip(log, [*log[1:], None], strict=True)
        if n is None or n["seconds"] < b["seconds"]
    )
    parameters = sum(p.numel() for p in model.parameters())
    card = CARD.format(
        parameters=parameters / 1e6,
        vocabulary=len(tokenizer),
        pages=state["pages"],
        minutes=seconds / 60,
        scores=scores(args.result),
    )
    (args.out / "README.md").write_text(card)
    (args.out / "model.safetensors").chmod(0o644)
    size = (args.out / "model.safetensors").stat().st_size
    print(f"{args.out}: {parameters / 1e6:.2f} M parameters, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
