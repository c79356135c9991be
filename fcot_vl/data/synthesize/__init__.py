"""Synthetic document pages: the embedded benchmark MiniDoc and, later, OCR-like training pages."""
