"""Samples, sources, images, tokenization and collation. This package does not import any model code."""
