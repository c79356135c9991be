"""Instruction data made with models: `label`, `rewrite` and `cot`, each records in, records out."""
