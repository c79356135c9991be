"""The guards of the suite itself: what a test left changed is named, and a skip needs a listed reason."""

from __future__ import annotations

import pytest
import torch
from expected_skips import is_expected
from global_state import changes, global_state
from PIL import ImageFile
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


def test_what_was_changed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = global_state()
    assert changes(before, global_state()) == []
    threads = torch.get_num_threads()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
            patch.setenv("FCOT_VL_LEFT", "behind")
            torch.set_num_threads(threads + 1)
            AutoConfig.register(
                "left-behind", type("Left", (PretrainedConfig,), {"model_type": "left-behind"})
            )
            found = "\n".join(changes(before, global_state()))
    finally:
        torch.set_num_threads(threads)
        CONFIG_MAPPING._extra_content.pop("left-behind", None)
    names = ("LOAD_TRUNCATED_IMAGES", "'FCOT_VL_LEFT': 'behind'", "number of threads", "left-behind")
    assert all(name in found for name in names), found
    assert changes(before, global_state()) == []


@pytest.mark.parametrize("reason", ["no GPU", "weasyprint is missing", "lmms-eval"])
def test_other_skips_are_unexpected(reason: str) -> None:
    assert not is_expected(reason)
