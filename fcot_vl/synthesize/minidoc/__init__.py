"""MiniDoc: the embedded benchmark, a seeded generator of document pages and questions.

Record k of a split is the same whatever the number of workers, shards or records (`make_document`). Train, validation
and test never share a content word (`documents.words`). `make_sample` gives the record as every stage reads it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from fcot_vl.data.dataset import Sample
from fcot_vl.synthesize.documents.words import SPLITS, Split
from fcot_vl.synthesize.minidoc.page import Page
from fcot_vl.synthesize.minidoc.tasks import METRICS, TASKS, Turn

__all__ = ["METRICS", "SPLITS", "TASKS", "Document", "make_document", "make_sample"]


@dataclass(frozen=True)
class Document:
    """A page with its questions, before it is drawn; `rng` carries on where the generator stopped (noise)."""

    id: str
    task: str
    page: Page
    turns: list[Turn]
    rng: random.Random


def make_document(split: Split, index: int, seed: int = 0, task: str | None = None) -> Document:
    """Record `index` of `split`; tasks take turns unless `task` names one.

    Raises ValueError for an unknown split or task.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown MiniDoc split {split!r}: choose one of {', '.join(SPLITS)}")
    if task is None:
        task = list(TASKS)[index % len(TASKS)]
    if task not in TASKS:
        raise ValueError(f"unknown MiniDoc task {task!r}: choose one of {', '.join(TASKS)}")
    rng = random.Random(f"minidoc/{seed}/{split}/{task}/{index}")
    page, turns = TASKS[task](rng, split)
    return Document(f"{split}-{seed}-{index:06d}-{task}", task, page, turns, rng)


def make_sample(split: Split, index: int, seed: int = 0, task: str | None = None) -> Sample:
    """Record `index` of `split` as a `Sample`: one question for validation and test, every turn for training."""
    document = make_document(split, index, seed, task)
    turns = document.turns if split == "train" else document.turns[:1]
    messages = []
    for turn in turns:
        messages += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer},
        ]
    return Sample(
        id=document.id,
        images=[document.page.image(document.rng)],
        messages=messages,
        task=document.task,
        source="minidoc",
        answers=[turns[0].gold],
        metric=METRICS[document.task],
        density=document.page.density,
        tiles=document.page.tiles,
    )
