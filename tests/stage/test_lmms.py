"""The plug-in in lmms-eval itself, in its environment (`make eval-env`); skipped elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcot_vl.data.dataset import Sample, write_shard
from fcot_vl.evaluate.tasks import minidoc as benchmarks
from fcot_vl.prune.method import Method
from fcot_vl.stages.evaluate import evaluate
from fcot_vl.stages.lmms_eval import LmmsTaskConfig, find_task, lmms_task

pytest.importorskip("lmms_eval", reason="lmms-eval lives in an environment of its own: make eval-env")

from lmms_eval.api.instance import Instance
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models import get_model
from lmms_eval.tasks import TaskManager

from fcot_vl.evaluate.lmms_eval_model import FCoTVL, LmmsRequest, batches, stop_rules, truncate_at

NEW_TOKENS = 12
SIZES = [(112, 112), (112, 336), (224, 112), (224, 112), (112, 112), (112, 112), (112, 336)]


def picture(width: int, height: int, seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 14, width // 14, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


def page(number: int, size: tuple[int, int]) -> Sample:
    question = "What is the " + "very " * number + "Name?"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "ab"}]
    return Sample(
        f"page-{number}",
        [picture(*size, seed=number)],
        messages,
        "forms",
        "test",
        ["ab", "a"],
        "anls",
        1.0,
    )


PAGES = [page(number, size) for number, size in enumerate(SIZES)]


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(benchmarks.MINIDOC["forms"], max_new_tokens=NEW_TOKENS)
    monkeypatch.setitem(benchmarks.MINIDOC, "forms", short)


@pytest.fixture
def student_folder(make_student: Callable[..., Any], teacher_folder: Path, tmp_path: Path) -> Path:
    from fcot_vl.models.auto import load_processor

    student = make_student(2)
    student.save_pretrained(tmp_path / "student")
    processor = load_processor(teacher_folder)
    processor.image_seq_length = student.config.image_seq_length
    processor.save_pretrained(tmp_path / "student")
    return tmp_path / "student"


def ask(model: Any, documents: list[dict[str, Any]], **gen_kwargs: Any) -> list[Any]:
    """What lmms-eval would do with documents of `question` and `images`."""
    model.task_dict = {"task": {"test": documents}}
    settings = {"max_new_tokens": NEW_TOKENS, "until": ["\n\n"], "temperature": 0, **gen_kwargs}
    requests = [
        Instance(
            request_type="generate_until",
            arguments=(doc["question"], settings, lambda doc: doc["images"], at, "task", "test"),
            idx=0,
            metadata={"task": "task", "doc_id": at, "repeats": 1},
        )
        for at, doc in enumerate(documents)
    ]
    return list(model.generate_until(requests))


def documents() -> list[dict[str, Any]]:
    return [{"question": page.messages[0]["content"], "images": page.images} for page in PAGES]


def predictions(folder: Path) -> list[str]:
    return [
        json.loads(line)["prediction"] for line in (folder / "predictions.jsonl").read_text().splitlines()
    ]


def test_lmms_eval_finds_the_model_by_its_name() -> None:
    assert get_model("fcot_vl") is FCoTVL


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(
    "method",
    [
        Method(),
        Method("fastv", 0.5, 2),
        Method("random", 0.5, seed=3),
        Method("smaller_page", 0.5),
        Method("fewer_tiles", 0.5),
    ],
)
def test_it_answers_as_our_own_runner(
    teacher_folder: Path, tmp_path: Path, method: Method, batch_size: int
) -> None:
    evaluate(teacher_folder, PAGES, tmp_path, method=method)
    peer = {"method": method.name, "keep": method.keep, "layer": method.layer, "seed": method.seed}
    model = FCoTVL(str(teacher_folder), batch_size=batch_size, **peer)  # type: ignore[arg-type]
    answers = [answer.text for answer in ask(model, documents())]
    assert answers == predictions(tmp_path)
    assert len(set(answers)) > 2, "the random teacher says the same of every page: nothing is tested"


def test_a_student_answers_as_in_our_own_runner(student_folder: Path, tmp_path: Path) -> None:
    evaluate(student_folder, PAGES, tmp_path / "out", stage="realign")
    model = FCoTVL.create_from_arg_string(f"pretrained={student_folder}", {"batch_size": "4", "device": None})
    assert [answer.text for answer in ask(model, documents())] == predictions(tmp_path / "out")


def test_a_local_task_has_the_score_of_our_own_runner(teacher_folder: Path, tmp_path: Path) -> None:
    evaluate(teacher_folder, PAGES, tmp_path / "first")  # answers that a random teacher nearly gives
    nearly = [text[: 4 + at].strip() for at, text in enumerate(predictions(tmp_path / "first"))]
    pages = [replace(page, answers=["no", text]) for page, text in zip(PAGES, nearly, strict=True)]
    shards = tmp_path / "pages"
    shards.mkdir()
    write_shard(shards / "test-00000.parquet", pages)
    ours = evaluate(teacher_folder, shards, tmp_path / "ours")["tasks"]["forms"]["score"]
    assert 0 < ours < 1
    written = lmms_task(LmmsTaskConfig(shards, tmp_path / "task", name="pages_anls", bare=True))
    assert written == tmp_path / "task" / "pages_anls.yaml"
    found = simple_evaluate(
        "fcot_vl",
        f"pretrained={teacher_folder}",
        tasks=["pages_anls"],
        task_manager=TaskManager(include_path=str(tmp_path / "task"), model_name="fcot_vl"),
        batch_size=3,
        gen_kwargs=f"max_new_tokens={NEW_TOKENS}",
    )
    assert found["results"]["pages_anls"]["anls,none"] == pytest.approx(ours, abs=1e-12)
    samples = sorted(found["samples"]["pages_anls"], key=lambda row: row["doc_id"])
    assert [row["filtered_resps"][0] for row in samples] == predictions(tmp_path / "ours")


def test_pictures_several_or_none(teacher_folder: Path) -> None:
    model = FCoTVL(str(teacher_folder), batch_size=3)
    mixed = [
        {"question": "Which?", "images": [picture(112, 112, 1), picture(224, 112, 2)]},
        {"question": "Nothing?", "images": None},
        {"question": "This?", "images": [picture(112, 336, 3).convert("L")]},
    ]
    together = ask(model, mixed)
    model.batch_size = 1
    assert [one.text for one in ask(model, mixed)] == [one.text for one in together]
    assert [one.token_counts.input_tokens for one in together] != [0, 0, 0]
    film = [{"question": "Moving?", "images": ["film.mp4"]}]
    with pytest.raises(ValueError, match=r"document 0.*only images"):
        ask(model, film)


def test_an_answer_ends_where_its_request_says(teacher_folder: Path) -> None:
    model = FCoTVL(str(teacher_folder), batch_size=4)
    long = ask(model, documents())
    short = ask(model, documents(), max_new_tokens=4)
    assert [one.token_counts.output_tokens <= 4 for one in short] == [True] * len(short)
    assert all(a.text.startswith(b.text) for a, b in zip(long, short, strict=True))
    mark = long[0].text[1]
    stopped = ask(model, documents(), until=[mark])
    assert [one.text for one in stopped] == [one.text.split(mark)[0] for one in long]


def test_what_ends_an_answer() -> None:
    assert stop_rules({"max_new_tokens": 7, "until": ["\n\n"], "temperature": 0.0}, "t") == (7, ())
    assert stop_rules({"until": ["ASSISTANT:", None, "\n"]}, "t") == (1024, ("ASSISTANT:", "\n"))
    assert stop_rules({"until": "END", "do_sample": False, "temperature": 1.0, "num_beams": 1}, "t")[1] == (
        "END",
    )
    assert stop_rules({"do_sample": True, "temperature": 0}, "t") == (1024, ())
    for drawn in ({"do_sample": True}, {"temperature": 0.2}, {"num_beams": 3}):
        with pytest.raises(ValueError, match=r"task t .*--gen_kwargs"):
            stop_rules(drawn, "t")
    assert truncate_at("one. two; three", ["; ", ". "]) == "one"
    assert truncate_at("one", []) == "one"


def test_batches_share_a_limit_and_begin_with_the_longest(teacher_folder: Path) -> None:
    model = FCoTVL(str(teacher_folder))
    model.task_dict = {"task": {"test": documents()}}
    asked: list[LmmsRequest] = []
    for at, doc in enumerate(documents()):
        arguments = (
            doc["question"],
            {"max_new_tokens": 5 + at % 2},
            lambda d: d["images"],
            at,
            "task",
            "test",
        )
        request = Instance("generate_until", arguments, 0, {"task": "task", "doc_id": at, "repeats": 1})
        asked.append(model._read(at, request))
    made = list(batches(asked, 2))
    assert sorted(one.index for batch in made for one in batch) == list(range(len(asked)))
    for batch in made:
        assert len({one.max_new_tokens for one in batch}) == 1 and len(batch) <= 2
    lengths = [one.prompt.length() for batch in made for one in batch if one.max_new_tokens == 5]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"method": "fastv", "keep": 0.5}, "needs a layer"),
        ({"method": "best"}, "unknown method"),
        ({"batch_size": "auto"}, "batch_size"),
        ({"pretrained": "nowhere/at/all"}, "nowhere/at/all"),
    ],
)
def test_wrong_arguments_are_refused_in_a_line(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FCoTVL(**wrong)


def test_wrong_tasks_are_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no task of lmms-eval"):
        find_task("docvqa_vaal", "mine")
    with pytest.raises(ValueError, match="a group"):
        find_task("docvqa", "mine")
    with pytest.raises(ValueError, match="another --name"):
        find_task("docvqa_val", "docvqa_test")
    with pytest.raises(ValueError, match="DatasetDict"):
        lmms_task(LmmsTaskConfig(tmp_path, tmp_path / "out", task="chartqa"))


def test_two_processes_share_the_questions(teacher_folder: Path, tmp_path: Path) -> None:
    shards = tmp_path / "pages"
    shards.mkdir()
    write_shard(shards / "test-00000.parquet", PAGES)
    lmms_task(LmmsTaskConfig(shards, tmp_path / "task", name="pages_anls", bare=True))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "lmms_eval"]
    command += ["--model", "fcot_vl", "--model_args", f"pretrained={teacher_folder}", "--tasks", "pages_anls"]
    command += ["--include_path", str(tmp_path / "task"), "--batch_size", "2", "--log_samples"]
    command += ["--gen_kwargs", f"max_new_tokens={NEW_TOKENS}", "--output_path", str(tmp_path / "scores")]
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    evaluate(teacher_folder, PAGES, tmp_path / "ours")
    (log,) = (tmp_path / "scores").rglob("*samples_pages_anls.jsonl")
    rows = sorted((json.loads(line) for line in log.read_text().splitlines()), key=lambda row: row["doc_id"])
    assert [row["doc_id"] for row in rows] == list(range(len(PAGES)))
    answers = [
        row.get("resps", row["filtered_resps"]) for row in rows
    ]  # logged apart where stripping changed it
    assert answers == predictions(tmp_path / "ours")
