"""The benchmarks of speed run whole on a model of next to no size: their code and exact counts, not their times."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from fcot_vl.prune.method import Method

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import shapes

    monkeypatch.setitem(shapes.SHAPES, "small", shapes.Shape(64, 96, 8, 4, 2, 128, 64, 2))
    return shapes


def test_table_5_has_a_row_per_ratio_and_a_column_per_image_set(
    shapes: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import table5

    monkeypatch.setattr(table5, "PAGES", {"A": (448, 448), "B": (896, 448)})  # 1 and 3 tiles
    settings = "--sizes small --pages 1 --rounds 1 --new-tokens 2 --batch-size 2"
    table5.main([*settings.split(), "--output", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])["sizes"]["small"]
    assert result == json.loads((tmp_path / "small" / "bench.json").read_text())
    assert [row["compress_ratio"] for row in result["contenders"]] == [1, 2, 4]
    for one, tiles in zip(result["sets"], (1, 3), strict=True):
        assert [row["visual_tokens_nominal"] for row in one["contenders"]] == [
            tiles * 256 // ratio for ratio in (1, 2, 4)
        ]
        assert [row["batch"]["size"] for row in one["contenders"]] == [2, 2, 2]
    table5.main(["--sizes", "small", "--count", "--new-tokens", "2"])
    counted = json.loads(capsys.readouterr().out.splitlines()[-1])["counted"]["small"]
    ran = [row for one in result["sets"] for row in one["contenders"]]
    for row, found in zip(counted, ran, strict=True):
        for part in ("tiles", "flops_vit", "flops_projector", "flops_prefill"):
            assert row[part] == pytest.approx(found[part])
        assert 2 * row["decode_bytes"] == pytest.approx(found["decode_bytes"])  # two bytes a number, not four
    rows = [line for line in lines if "small teacher" in line or "small student" in line]
    assert ["0%" in rows[0], "50%" in rows[1], "75%" in rows[2]] == [True] * 3


def test_every_peer_is_held_against_its_tokens(
    shapes: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import prune

    monkeypatch.setattr(prune, "PAGE", (896, 448))
    prune.main(["--shape", "small", "--rounds", "1"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["peers"]
    assert set(figures) == {"unpatched", *prune.BASELINES}
    words = figures["unpatched"]["layer_mean_tokens"] - 768
    assert figures["fastv"]["layer_mean_tokens"] == words + 768 * (2 + 6 / 4) / 8
    assert figures["random"]["layer_mean_tokens"] == words + 192
    assert (
        figures["unpatched"]["share_of_operations"] == figures["unpatched"]["over_operations"]["median"] == 1
    )
    for name, row in figures.items():
        assert row["over_length"]["median"] > 0
        assert (row["share_of_operations"] < 1) == (name != "unpatched")


def test_a_cache_that_is_not_what_the_method_plans_ends_the_run(
    shapes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import prune

    monkeypatch.setattr(prune, "PAGE", (896, 448))
    bench = prune.Bench("small", ["uniform"])
    run = bench.candidates["uniform"].measure([bench.page], 2)
    bench.check_cache("uniform", run)
    monkeypatch.setattr(Method, "drops", lambda self, n_layers: ((0, 0.5),))
    with pytest.raises(AssertionError, match="uniform: the cache holds"):
        bench.check_cache("uniform", run)
