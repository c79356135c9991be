"""The groups a training run's losses are told apart by, and `resample` weighs: tasks, or sources of a mixture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fcot_vl.data.mixture import Mixture
from fcot_vl.data.sources import origin_of


def group_names(samples: Any, indices: Sequence[int], tasks: Sequence[str]) -> list[str]:
    """The group of each record.

    In a mixture a group is a source under its name there, or `source/task` where the source holds several tasks;
    elsewhere it is the record's task, or its source where it has none.

    Args:
        samples: what `open_data` gives, or any sequence of samples.
        indices: records of it.
        tasks: their tasks, `""` where there is none.
    """
    if not isinstance(samples, Mixture):
        return [
            task or origin_of(samples, index).source or "all"
            for index, task in zip(indices, tasks, strict=True)
        ]
    sources = [samples.names[samples.plan[index][0]] for index in indices]
    held: dict[str, set[str]] = defaultdict(set)
    for source, task in zip(sources, tasks, strict=True):
        held[source].add(task)
    return [
        f"{source}/{task}" if len(held[source]) > 1 and task else source
        for source, task in zip(sources, tasks, strict=True)
    ]
