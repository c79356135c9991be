"""Kinds of documents, one per file; `registry` lists them by name."""
