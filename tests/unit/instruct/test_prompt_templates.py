"""Prompt templates: the package's own, a person's over them, and what is wrong with one said clearly."""

from __future__ import annotations

import json

import pytest

from fcot_vl.instruct.prompt_templates import PROMPTS, PromptTemplates, StyleExamples, _read
from fcot_vl.synthesize.minidoc import TASKS

VALUES = {"question": "Total?", "answer": "{task} {{x}} {nothing} \\1", "examples": ""}


def test_the_packaged_ones() -> None:
    rewrite, cot = PromptTemplates("rewrite"), PromptTemplates("cot")
    for templates in (rewrite, cot):
        assert templates.fill("transcribe", **VALUES) is None and templates.fill("table", **VALUES) is None
        assert "Total?" in str(templates.fill("anything else", **VALUES))
    assert VALUES["answer"] in str(rewrite.fill("", **VALUES)), "braces of a document do no harm"
    for task in TASKS.keys() - {"transcribe", "table_markdown", "multiple_choice"}:
        assert cot.fill(task, **VALUES) == "Total?", "the embedded teacher knows the plain question alone"
    for path in PROMPTS.glob("*.yaml"):
        assert _read(path)["default"]


def test_a_persons_own_go_before(tmp_path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("default: 'Say {answer} ({task}): {\"a\": 1}'\nchart: '{question}'\nmath: null\n")
    templates = PromptTemplates("rewrite", own)
    assert templates.fill("letter", question="", answer="x", examples="") == 'Say x (letter): {"a": 1}'
    assert templates.fill("chart", **VALUES) == "Total?" and templates.fill("math", **VALUES) is None
    assert templates.fill("table", **VALUES) is None, "keys that are not overridden stay"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "default: 'Say {anwser}'",
            r"own.yaml: default: unknown placeholder \{anwser\}; choose from \{question\}",
        ),
        ("default: 3", "own.yaml: default: a template must be a text or null, got 3"),
        ("default: ' '", "a template must be a text or null"),
        ("1: x", "own.yaml: 1: a template must be a text or null"),
        ("- x", "must map tasks to templates"),
        ("", "must map tasks to templates"),
        ("a: [", "own.yaml: cannot be read"),
        (
            "chrat: x",
            r"no sample has the task 'chrat'; tasks of the data: chart_qa, forms; tasks of the package: chart, ",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text: str, message: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text)
    with pytest.raises(ValueError, match=message):
        PromptTemplates("rewrite", own, lambda: ["forms", "chart_qa", "forms"])


def test_a_task_of_the_data_is_no_slip(tmp_path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("my_invoices: '{question}'\n")

    def tasks():
        yield "my_invoices"
        raise AssertionError("read no further than needed")

    assert PromptTemplates("cot", own, tasks).fill("my_invoices", **VALUES) == "Total?"


def test_examples_of_a_tone(tmp_path) -> None:
    path = tmp_path / "label-00000.jsonl"
    rows = [{"question": f"Q{k}?", "answer": f"A{k}."} for k in range(9)]
    rows += [
        {"kind": "broken image"},
        {"question": "long", "answer": "x" * 601},
        {"question": "", "answer": "y"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "[1]\n")
    style = StyleExamples(path, seed=0)
    assert len(style.examples) == 9
    shown = style.draw("a")
    assert shown.count("Question: ") == 3 and shown == StyleExamples(path, seed=0).draw("a")
    assert len({style.draw(str(key)) for key in range(9)}) > 1 and shown != StyleExamples(path, seed=1).draw(
        "a"
    )
    assert StyleExamples(None, 0).draw("a") == "" and StyleExamples(None, 0).fingerprint() is None
    for text, message in (
        ("{", "cannot be read as JSON lines"),
        ('{"question": "q"}', "no line with a question"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            StyleExamples(path, 0)
    with pytest.raises(ValueError, match="cannot be read"):
        StyleExamples(tmp_path / "none.jsonl", 0)
