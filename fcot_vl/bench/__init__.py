"""The `bench` stage: compare the time, KV cache and operations of compressed models and their baselines.

`entrant` runs one candidate and measures it with `clock`. `bound` predicts the times of a candidate from the measured
times of the baseline and the paper's cost model. `summary` computes statistics over many runs, `table` formats them,
and `stage` runs everything.
"""

from fcot_vl.bench.entrant import PARTS, Contender
from fcot_vl.bench.stage import bench

__all__ = ["PARTS", "Contender", "bench"]
