"""Synthetic document pages: the embedded benchmark MiniDoc, and OCR-like training pages."""
