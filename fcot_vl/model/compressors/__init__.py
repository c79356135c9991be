"""Compressors `V_c`, one per file; `fcot_vl.model.compressor` selects them by name."""
