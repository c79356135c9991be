"""Samples, images, collation and synthesis. This package does not import any model code."""
