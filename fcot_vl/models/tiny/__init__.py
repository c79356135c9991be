"""The embedded default teacher: a folder in the Hugging Face InternVL layout that ships inside the package."""

from pathlib import Path


def tiny_teacher_path() -> Path:
    """Return the folder of the packaged teacher (config, weights, tokenizer, chat template, preprocessor settings)."""
    return Path(__file__).resolve().parent
