"""MiniDoc's tasks: metrics, limits, the final answer, bands of text density."""

from __future__ import annotations

import pytest

from fcot_vl.evaluate.tasks import minidoc as benchmarks
from fcot_vl.evaluate.tasks.minidoc import Task, density_band, density_bands, final_answer, score, task_of
from fcot_vl.synthesize.minidoc import METRICS as MINIDOC_METRICS


def test_tasks_fit_minidoc() -> None:
    assert {name: task.metric for name, task in benchmarks.MINIDOC.items()} == MINIDOC_METRICS


def test_answers_are_read_off_after_the_marker_only_where_reasoning_is_asked_for() -> None:
    worked, plain = Task("relaxed", worked=True), Task("cer")
    assert final_answer("3+4=7. Answer: 7", worked) == "7"
    assert final_answer("Answer: 3. Answer: 7 ", worked) == "7"
    assert final_answer(" 7\n", worked) == "7"
    assert final_answer("Answer: 7", plain) == "Answer: 7"
    assert score("3+4=7. Answer: 7", ["7"], worked) == 1.0
    assert score("3+4=7. Answer:", ["7"], worked) == 0.0
    assert task_of("someone's own", "exact") == Task("exact")
    with pytest.raises(ValueError, match="unknown metric"):
        task_of("forms", "bleu")
    with pytest.raises(ValueError, match="scored by 'anls'"):
        task_of("forms", "cer")


def test_every_density_band_has_enough_pages() -> None:
    pages = [0.1] * 60 + [0.25] * 59 + [0.5] * 60 + [1.0] * 70 + [2.0] * 60 + [4.0] * 59
    assert density_bands(pages) == ["0-0.25", "0.25-1", "1-2", "2-8"]
    assert density_bands([*pages, 0.3, 11.0]) == ["0-0.25", "0.25-0.5", "0.5-1", "1-2", "2-4", "4-8"]
    assert density_bands([0.3] * 200) == ["0-0.5"]
    assert density_bands([]) == []


def test_a_page_belongs_to_the_band_that_its_density_begins() -> None:
    bands = ["0-0.25", "0.25-1", "1-8"]
    assert [density_band(d, bands) for d in (0.0, 0.24, 0.25, 0.99, 1.0, 11.0)] == [
        *("0-0.25", "0-0.25", "0.25-1", "0.25-1", "1-8", "1-8")
    ]
