"""Load models of strangers: code that comes with a model never runs, and every error has one line.

All loading goes through `checked`. Every call of `from_pretrained` also says `trust_remote_code=False`, because
transformers otherwise asks on the terminal whether to run the code (a contract test reads the calls).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from fcot_vl.common.errors import CheckpointError, one_line


@contextmanager
def checked(
    path_or_id: str | Path, problem: str = "the model cannot be loaded", own_code_refused: bool = True
) -> Iterator[None]:
    """Refuse a checkpoint that needs code of its own, and turn any error inside the block into a ValueError.

    Args:
        path_or_id: Folder or Hub id of the checkpoint.
        problem: Text of the error, which is followed by the reason.
        own_code_refused: Whether to refuse the original layout; False where only its configuration is read.

    Raises:
        ValueError: If the checkpoint cannot be used; the message has one line.
    """
    try:
        if own_code_refused:
            refuse_own_code(path_or_id)
        yield
    except (torch.OutOfMemoryError, MemoryError, CheckpointError):
        raise
    except Exception as error:  # a damaged or strange file makes the libraries raise nearly any error
        reason = one_line(error)
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            reason = "it needs code that comes with it, which is never run"
        raise CheckpointError(f"{path_or_id}: {problem} ({reason})") from None


def refuse_own_code(path_or_id: str | Path) -> None:
    """Refuse a checkpoint in the original layout, or one whose configuration names code to download.

    Raises:
        CheckpointError: If the checkpoint is refused.
    """
    try:
        raw = PreTrainedConfig.get_config_dict(path_or_id)[0]
    except OSError:  # no configuration: whatever loads the checkpoint says so
        return
    if "llm_config" in raw or raw.get("model_type") == "internvl_chat":
        raise CheckpointError(
            f"{path_or_id}: a checkpoint in the original OpenGVLab layout, whose code is never run; convert it first: "
            f"fcot-vl convert {path_or_id} OUTPUT"
        )
    for key, value in _entries(raw):
        # transformers downloads and imports such a kernel if the package `kernels` is installed.
        if "implementation" in key and "/" in str(value):
            raise CheckpointError(
                f"{path_or_id}: config.json sets {key} to {value!r}, code from the Hub that is never run here; "
                "remove the entry"
            )


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of nested objects, at any depth."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield from ((str(key), one) for key, one in found.items())
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


__all__ = ["CheckpointError", "checked", "refuse_own_code"]
