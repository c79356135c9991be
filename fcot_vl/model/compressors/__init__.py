"""Compressors `V_c`, one a file; `fcot_vl.model.compressor` knows them by name."""
