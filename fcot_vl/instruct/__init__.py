"""Instruction data made with models: `label`, `rewrite` and `cot`. Each reads samples and writes samples."""
