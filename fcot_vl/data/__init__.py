"""Data: samples, pictures, collation and synthesis. Knows nothing of models (imports go down only)."""
