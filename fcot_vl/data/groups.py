"""Groups used for reporting losses and for `resample`: tasks, or the sources of a mixture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fcot_vl.data.mixture import Mixture
from fcot_vl.data.sources.base import origin_of


def group_names(samples: Any, indices: Sequence[int], tasks: Sequence[str]) -> list[str]:
    """Return the group of each sample.

    In a mixture, a group is a source, named as in the mixture, or `source/task` if the source has several tasks. In
    other data, a group is the task of the sample, or its source if it has no task.

    Args:
        samples: Result of `open_data`, or any sequence of samples.
        indices: Indices of the samples.
        tasks: Tasks of these samples, `""` for samples without a task.
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
