"""Evaluation: metrics, benchmarks, and the generation, storage and aggregation of predictions."""
