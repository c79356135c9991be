"""The `bench` stage: what compression and its peers save in time, cache and arithmetic, side by side.

`entrant` runs a contender once and measures it by `clock`; `bound` says what the teacher's times and the paper's cost
model predict for it; `summary` makes figures of many runs, `table` shows them, `stage` does it all.
"""

from fcot_vl.bench.entrant import PARTS, Contender
from fcot_vl.bench.stage import bench

__all__ = ["PARTS", "Contender", "bench"]
