"""Timing of models and baselines: `measure` runs one candidate, `aggregation` and `tables` summarize many runs.

`speedup_bound` predicts the times of a candidate from the measured times of the baseline and the paper's cost model.
"""
