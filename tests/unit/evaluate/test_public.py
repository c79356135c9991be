"""The paper's benchmarks against what lmms-eval 0.7.3 asked and how it scored: prompts, every question, aggregates."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from lmms_case import dataset, png, recorded
from PIL import Image

from fcot_vl.data.chat_format import SampleError
from fcot_vl.data.images import ImageError
from fcot_vl.evaluate.aggregation import summarize_benchmark
from fcot_vl.evaluate.metrics.document import anls
from fcot_vl.evaluate.metrics.lmms import lmms_anls
from fcot_vl.evaluate.tasks.dataset import BenchmarkSamples, open_benchmark
from fcot_vl.evaluate.tasks.minidoc import score
from fcot_vl.evaluate.tasks.public import BENCHMARKS, NOT_SCORED_HERE, benchmark_of

ALL = sorted(BENCHMARKS)


def records(name: str, rows: Any = None, folder: Path = Path()) -> BenchmarkSamples:
    benchmark = BENCHMARKS[name]
    return BenchmarkSamples(benchmark, dataset(name) if rows is None else rows, benchmark.split, folder)


def judged(name: str, predictions: list[str]) -> list[dict[str, Any]]:
    """Rows of `predictions.jsonl` as the runner makes them."""
    rows = []
    for sample, prediction in zip(records(name), predictions, strict=True):
        task = BENCHMARKS[name].task(sample.task, sample.metric)
        mark = score(prediction, sample.answers, task)
        rows.append({"id": sample.id, "task": sample.task, "prediction": prediction, "score": mark})
    return rows


# ------------------------------------------------------------------------------------------------ against lmms-eval


def test_every_benchmark_was_recorded() -> None:
    assert {path.stem for path in (Path(__file__).parents[2] / "data" / "lmms-eval").glob("*.json")} == set(
        ALL
    )
    assert not set(ALL) & set(NOT_SCORED_HERE)


@pytest.mark.parametrize("name", ALL)
def test_where_it_lies_and_what_is_asked(name: str) -> None:
    found, benchmark = recorded(name), BENCHMARKS[name]
    assert (benchmark.hub, benchmark.config, benchmark.split) == (
        found["hub"],
        found["config"],
        found["split"],
    )
    assert benchmark.max_new_tokens == (found["max_new_tokens"] or 1024)
    asked = [sample.messages for sample in records(name)]
    assert asked == [[{"role": "user", "content": prompt}] for prompt in found["prompts"]]
    assert set(benchmark.columns) == set(found["rows"][0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_question_is_scored_as_lmms_eval_scores_it(name: str) -> None:
    seen = set()
    for one in recorded(name)["rounds"]:
        for row, want in zip(judged(name, one["predictions"]), one["scores"], strict=True):
            assert row["score"] == pytest.approx(want, abs=1e-12), row
            seen.add(want > 0)
    assert seen == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_aggregates_are_those_of_lmms_eval(name: str) -> None:
    totals = set()
    for one in recorded(name)["rounds"]:
        found, want = (
            summarize_benchmark(BENCHMARKS[name], judged(name, one["predictions"])),
            one["aggregates"],
        )
        assert {key: found["scores"][key]["score"] for key in want} == pytest.approx(want, abs=1e-9)
        headline = sum(want.values()) if name == "mme" else want[BENCHMARKS[name].reported]
        assert found["score"] == pytest.approx(headline)
        low, high = found["score_ci"]
        assert low <= found["score"] <= high
        assert low < high
        totals.add(round(headline, 6))
    assert len(totals) > 3


def test_anls_of_lmms_eval_is_not_the_original_one() -> None:
    """Inner whitespace is made single before edits are counted, but the length is that of the text as written."""
    assert anls("St. Louis", ["St.  Louis"]) == pytest.approx(0.9)
    assert lmms_anls("St. Louis", ["St.  Louis"]) == 1.0
    assert lmms_anls("ab", ["ac  "]) == 0.75
    assert anls("ab", ["ac  "]) == 0.5


# ------------------------------------------------------------------------------------------------------- aggregates


def mme_row(page: str, category: str, mark: float, at: int) -> dict[str, Any]:
    return {"id": f"{at}:{page}", "task": category, "score": mark}


def test_mme_adds_accuracy_and_pairs_over_categories() -> None:
    marks = {"existence": [(1, 1), (1, 0)], "code_reasoning": [(0, 0), (1, 1), (1, 1)]}
    rows = [
        mme_row(f"{category}/{page}", category, mark, 2 * page + which)
        for category, pairs in marks.items()
        for page, pair in enumerate(pairs)
        for which, mark in enumerate(pair)
    ]
    found = summarize_benchmark(BENCHMARKS["mme"], rows)
    assert found["scores"]["mme_perception_score"]["score"] == pytest.approx(75 + 50)
    assert found["scores"]["mme_cognition_score"]["score"] == pytest.approx(4 / 6 * 100 + 2 / 3 * 100)
    assert found["score"] == pytest.approx(125 + 800 / 6)
    group = found["groups"]["existence"]
    assert (group["accuracy"], group["accuracy_plus"], group["n"]) == (75.0, 50.0, 2)
    assert found["unpaired"] == 0


def test_mme_leaves_out_a_picture_with_one_question() -> None:
    rows = [mme_row("p/1", "count", 1, 0), mme_row("p/1", "count", 1, 1), mme_row("p/2", "count", 0, 2)]
    found = summarize_benchmark(BENCHMARKS["mme"], rows)
    assert (found["score"], found["unpaired"]) == (200.0, 1)
    assert found["scores"]["mme_cognition_score"]["score"] is None


def test_ocrbench_counts_right_answers_out_of_a_thousand() -> None:
    rows = [{"id": str(i), "task": "ab"[i % 2], "score": float(i < 30)} for i in range(40)]
    found = summarize_benchmark(BENCHMARKS["ocrbench"], rows)
    assert found["score"] == pytest.approx(0.030)
    assert found["scores"]["right_answers"]["score"] == pytest.approx(30)
    assert {name: (part["n"], part["score"]) for name, part in found["groups"].items()} == {
        "a": (20, 15.0),
        "b": (20, 15.0),
    }


def test_chartqa_is_told_apart_by_origin() -> None:
    rows = [{"id": "0", "task": "human", "score": 1.0}, {"id": "1", "task": "augmented", "score": 0.0}] * 2
    found = summarize_benchmark(BENCHMARKS["chartqa"], rows)
    assert {name: part["score"] for name, part in found["groups"].items()} == {"augmented": 0.0, "human": 1.0}


def test_rows_without_a_score_give_none() -> None:
    found = summarize_benchmark(BENCHMARKS["docvqa"], [{"id": "0:1", "task": "docvqa", "score": None}])
    assert (found["score"], found["score_ci"], found["scores"]) == (None, None, {})


# ------------------------------------------------------------------------------------------------------------- rows


def test_pictures_are_read_when_they_are_used() -> None:
    sample = records("docvqa")[1]
    assert sample.images[0].size == (224, 112)
    assert sample.images[0]._im is None
    assert sample.images[0].tobytes() == Image.open(io.BytesIO(png(1, (224, 112)))).tobytes()


def test_a_record_says_where_it_stands_and_its_own_id() -> None:
    found = records("docvqa")
    assert [found[0].id, found[27].id] == ["0:1000", "27:1027"]
    assert found.origin(3).id == "3:1003"
    assert [records("chartqa")[5].id, records("mme")[1].id] == ["5", "1:existence/0000.png"]
    assert {sample.task for sample in records("chartqa")} == {"human", "augmented"}


def test_a_hash_sees_rows_pictures_and_the_split() -> None:
    rows = dataset("docvqa", 6)
    base = records("docvqa", rows).fingerprint()
    assert records("docvqa", dataset("docvqa", 6)).fingerprint() == base
    other = rows.map(lambda row, at: {"answers": ["x"]} if at == 5 else {}, with_indices=True)
    again = dataset("docvqa", 6, broken=(5,))
    test = BenchmarkSamples(BENCHMARKS["docvqa"], rows, "train", Path())
    hashes = {records("docvqa", r).fingerprint() for r in (other, again, rows.select(range(5)))}
    assert len(hashes | {base, test.fingerprint()}) == 5


def test_what_cannot_be_asked_says_why() -> None:
    with pytest.raises(ImageError, match="docvqa, row 1"):
        records("docvqa", dataset("docvqa", 3, broken=(1,)))[1]
    for name, change, reason in [
        ("docvqa", {"image": None}, "row 0: nothing in column 'image'"),
        ("docvqa", {"answers": []}, r"column 'answers' has \[\]: expected text, found nothing"),
        ("docvqa", {"answers": ["a", None]}, "column 'answers' has .*: expected text, found nothing"),
        ("textvqa", {"answers": ["a"] * 9}, "9 answers in column 'answers', not ten"),
        ("ai2d", {"answer": "7"}, "'7' is not the number of one of the 4 choices"),
        ("ai2d", {"options": None}, "row 0: nothing in column 'options'"),
        ("ai2d", {"options": ["a", None]}, "row 0: nothing in column 'options'"),
        ("chartqa", {"answer": None}, "column 'answer' has None"),
    ]:
        rows = dataset(name, 2)
        rows = Dataset.from_list([{**rows[0], **change}, rows[1]], features=rows.features)
        with pytest.raises(SampleError, match=reason):
            records(name, rows)[0]


NEEDED = [
    (name, column)
    for name, benchmark in BENCHMARKS.items()
    for column in benchmark.columns
    if column not in benchmark.optional
]


@pytest.mark.parametrize(("name", "column"), NEEDED)
def test_nothing_in_any_column_is_never_asked(name: str, column: str) -> None:
    rows = dataset(name, 2)
    rows = Dataset.from_list([{**rows[0], column: None}, rows[1]], features=rows.features)
    with pytest.raises(SampleError) as caught:
        records(name, rows)[0]
    assert repr(column) in str(caught.value) or "answer" in str(caught.value)
    assert "None" not in records(name, rows)[1].question


@pytest.mark.parametrize("hint", [None, ""])
def test_a_hint_may_be_missing(hint: str | None) -> None:
    rows = dataset("scienceqa", 1)
    rows = Dataset.from_list([{**rows[0], "hint": hint}], features=rows.features)
    assert "Context" not in records("scienceqa", rows)[0].question


def test_a_number_is_an_answer() -> None:
    row = {**dataset("chartqa", 1)[0], "answer": 42}
    assert BENCHMARKS["chartqa"].answers(row) == ["42"]
    assert BENCHMARKS["textvqa"].answers({"answers": ["a", *[""] * 9]})[1:] == [""] * 9


def test_missing_columns_are_named() -> None:
    rows = dataset("mme", 4).rename_column("category", "kind").remove_columns("answer")
    with pytest.raises(ValueError, match=r"mme: no column 'answer', 'category'.*question_id.*kind"):
        records("mme", rows)


def test_hidden_answers_are_not_looked_for(tmp_path: Path) -> None:
    rows = dataset("docvqa", 2).remove_columns("answers")
    found = BenchmarkSamples(BENCHMARKS["docvqa"], rows, "test", tmp_path)
    assert (found.hidden, found[0].answers) == (True, [])
    with pytest.raises(ValueError, match="no column 'answers'"):
        records("docvqa", rows)


def test_submissions_have_the_servers_form() -> None:
    rows = [{"id": "0:49153", "prediction": " The Cat.\n"}, {"id": "1:x1", "prediction": ""}]
    assert BENCHMARKS["docvqa"].submission(rows) == [
        {"questionId": 49153, "answer": "The Cat."},
        {"questionId": "x1", "answer": ""},
    ]
    assert BENCHMARKS["textvqa"].submission(rows[:1]) == [{"question_id": 49153, "answer": "cat"}]


# ------------------------------------------------------------------------------------------------------ local folders


def same(found: BenchmarkSamples, name: str) -> None:
    want = records(name)
    assert [(s.id, s.messages, s.answers) for s in found] == [(s.id, s.messages, s.answers) for s in want]
    assert found[1].images[0].tobytes() == want[1].images[0].tobytes()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def test_folders_of_save_to_disk(tmp_path: Path) -> None:
    dataset("docvqa").save_to_disk(tmp_path / "one")
    same(open_benchmark(BENCHMARKS["docvqa"], tmp_path / "one"), "docvqa")
    DatasetDict({"validation": dataset("docvqa")}).save_to_disk(tmp_path / "dict")
    same(open_benchmark(BENCHMARKS["docvqa"], str(tmp_path / "dict")), "docvqa")
    with pytest.raises(ValueError, match="no split 'test'; it has validation"):
        open_benchmark(BENCHMARKS["docvqa"], tmp_path / "dict", split="test")


def test_a_copy_of_a_hub_repository(tmp_path: Path) -> None:
    """Several splits of Parquet files; the split's own are read."""
    (tmp_path / "clone" / "data").mkdir(parents=True)
    dataset("textvqa").to_parquet(tmp_path / "clone" / "data" / "validation-00000-of-00001.parquet")
    dataset("textvqa", 3).to_parquet(tmp_path / "clone" / "data" / "train-00000-of-00001.parquet")
    same(open_benchmark(BENCHMARKS["textvqa"], tmp_path / "clone"), "textvqa")
    assert len(open_benchmark(BENCHMARKS["textvqa"], tmp_path / "clone", split="train")) == 3
    with pytest.raises(ValueError, match="test"):
        open_benchmark(BENCHMARKS["textvqa"], tmp_path / "clone", split="test")


def test_a_copy_with_several_configurations(tmp_path: Path) -> None:
    names = ("DocVQA", "InfographicVQA")
    for at, name in enumerate(names):
        (tmp_path / "clone" / name).mkdir(parents=True)
        dataset("docvqa", 4 + at).to_parquet(tmp_path / "clone" / name / "validation-00000-of-00001.parquet")
    entries = [
        {"config_name": n, "data_files": [{"split": "validation", "path": f"{n}/validation-*"}]}
        for n in names
    ]
    (tmp_path / "clone" / "README.md").write_text(f"---\n{json.dumps({'configs': entries})}\n---\n")
    assert len(open_benchmark(BENCHMARKS["docvqa"], tmp_path / "clone")) == 4
    assert len(open_benchmark(BENCHMARKS["infovqa"], tmp_path / "clone")) == 5
    with pytest.raises(ValueError, match="configurations DocVQA, InfographicVQA; it should have one"):
        open_benchmark(BENCHMARKS["textvqa"], tmp_path / "clone")


@pytest.mark.parametrize("form", ["jsonl", "imagefolder"])
def test_json_lines_with_pictures_beside_them(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "clone" / "validation"
    folder.mkdir(parents=True)
    name = "image" if form == "jsonl" else "file_name"
    lines = []
    for at, row in enumerate(recorded("docvqa")["rows"]):
        (folder / f"{at}.png").write_bytes(png(at, (224, 112) if at % 4 == 1 else (112, 112)))
        lines.append(json.dumps({**row, name: f"{at}.png"}))
    file = folder / ("rows.jsonl" if form == "jsonl" else "metadata.jsonl")
    file.write_text("\n".join(lines) + "\n")
    same(open_benchmark(BENCHMARKS["docvqa"], file if form == "jsonl" else tmp_path / "clone"), "docvqa")


def test_a_limit_takes_the_first_rows(tmp_path: Path) -> None:
    dataset("mme").save_to_disk(tmp_path / "mme")
    found = open_benchmark(BENCHMARKS["mme"], tmp_path / "mme", limit=4)
    assert [sample.id.partition(":")[0] for sample in found] == ["0", "1", "2", "3"]
    assert len(open_benchmark(BENCHMARKS["mme"], tmp_path / "mme", limit=4000)) == 56


def test_code_of_a_dataset_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "clone.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ValueError, match="cannot be loaded"):
        open_benchmark(BENCHMARKS["docvqa"], tmp_path / "clone")
    assert not (tmp_path / "ran").exists()


def test_wrong_places_and_names_are_said(tmp_path: Path) -> None:
    for place in (tmp_path / "none", "a/b/c", "./none"):
        with pytest.raises(ValueError, match=r"docvqa: .* cannot be loaded \(no such file or folder\)"):
            open_benchmark(BENCHMARKS["docvqa"], place)
    (tmp_path / "rows.csv").write_text("a\n1\n")
    with pytest.raises(ValueError, match=r"a \.csv file; known are"):
        open_benchmark(BENCHMARKS["docvqa"], tmp_path / "rows.csv")
    with pytest.raises(ValueError, match="unknown benchmark 'vqa'; choose from docvqa"):
        benchmark_of("vqa")
    for name in NOT_SCORED_HERE:
        with pytest.raises(ValueError, match=f"'{name}' is not scored here .* run lmms-eval with --tasks"):
            benchmark_of(name)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(ValueError, match="has no row"):
        records("docvqa", dataset("docvqa", 2).select(range(0)))
