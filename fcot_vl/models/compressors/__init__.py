"""Compressors `V_c`, one per file; `fcot_vl.models.compressors.registry` selects them by name."""
