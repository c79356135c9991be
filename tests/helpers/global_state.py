"""State that belongs to the whole process, which one test could leave behind for the next."""

from __future__ import annotations

import locale
import logging
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from PIL import Image, ImageFile
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto import configuration_auto, modeling_auto, tokenization_auto

TESTS = Path(__file__).parents[1]


def global_state() -> dict[str, Any]:
    """Everything that is compared, by name. `warnings.filters` is not here: pytest restores it around each test."""
    mappings = {
        name: frozenset(map(str, mapping._extra_content))
        for module in (configuration_auto, modeling_auto, tokenization_auto)
        for name, mapping in vars(module).items()
        if name.endswith("MAPPING") and hasattr(mapping, "_extra_content")
    }
    matplotlib = sys.modules.get("matplotlib")
    return {
        "PIL.ImageFile.LOAD_TRUNCATED_IMAGES": ImageFile.LOAD_TRUNCATED_IMAGES,
        "PIL.Image.MAX_IMAGE_PIXELS": Image.MAX_IMAGE_PIXELS,
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch's float32 matmul precision": torch.get_float32_matmul_precision(),
        "torch's process group": torch.distributed.is_initialized(),
        "numpy's error handling": np.geterr(),
        "numpy's print options": str(np.get_printoptions()),
        "transformers' verbosity": transformers.logging.get_verbosity(),
        "transformers' attention functions": frozenset(ALL_ATTENTION_FUNCTIONS.keys()),
        "datasets' progress bars": not datasets.utils.are_progress_bars_disabled(),
        "the root logger": (logging.root.level, logging.root.disabled, logging.root.manager.disable),
        "the package's logger": (
            logging.getLogger("fcot_vl").level,
            list(logging.getLogger("fcot_vl").handlers),
        ),
        "the locale": locale.setlocale(locale.LC_ALL),
        "the working directory": Path.cwd(),
        "the environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "sys.path": [path for path in sys.path if not Path(path).is_relative_to(TESTS)],  # those pytest adds
        "sys.excepthook": sys.excepthook,
        "the recursion limit": sys.getrecursionlimit(),
        "signal handlers": [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)],
        "the default socket timeout": socket.getdefaulttimeout(),
        "the temporary folder": tempfile.tempdir,
        "matplotlib's settings": dict(matplotlib.rcParams) if hasattr(matplotlib, "rcParams") else None,
        **{f"transformers' {name}": names for name, names in mappings.items()},
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """One line for each entry that differs. What was not imported before has no earlier state."""
    found = []
    for name in before:
        old, new = before[name], after[name]
        if old == new or (old is None and name == "matplotlib's settings"):
            continue
        if isinstance(old, dict):
            keys = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
            old, new = {k: old.get(k) for k in keys}, {k: new.get(k) for k in keys}
        elif isinstance(old, frozenset):
            old, new = sorted(old - new), sorted(new - old)
        found.append(f"{name}: {old!r} before, {new!r} after")
    return found
