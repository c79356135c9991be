"""Evaluation: metrics, benchmarks, the runner that writes result files, and the report made from them."""
