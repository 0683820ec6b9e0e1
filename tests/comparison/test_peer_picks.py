"""AIConfigurator's result folder, read and held against our ranking: a small folder made by hand in its format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotune.comparison.aiconfigurator import PICKS, SOURCES, read_picks
from autotune.comparison.peer_picks import explain_picks
from autotune.report.peer_picks import explanation_document, explanation_report
from autotune.text.escaping import csv_text
from autotune.traffic.load import load_study
from costmodel.errors import InputError

STUDY = Path(__file__).parents[2] / "studies" / "deepseek-v3-128xh200.toml"
AGG: dict[str, Any] = {
    "model": "deepseek-ai/DeepSeek-V3", "isl": 4000, "osl": 1000, "concurrency": 96, "ttft": 900.0, "tpot": 45.0,
    "tokens/s/gpu": 240.0, "num_total_gpus": 8, "tp": 8, "pp": 1, "dp": 1, "moe_tp": 1, "moe_ep": 8,
    "backend": "vllm", "system": "h200_sxm",
}  # fmt: skip
DISAGG: dict[str, Any] = {
    **{name: AGG[name] for name in ("model", "isl", "osl", "ttft", "tpot", "tokens/s/gpu")},
    "concurrency": 200, "num_total_gpus": 24, "(p)workers": 1, "(d)workers": 2, "(p)backend": "vllm",
    "(d)backend": "vllm", "(d)system": "h200_sxm",
    **{f"({role}){axis}": AGG[axis] for role in "pd" for axis in ("tp", "pp", "dp", "moe_tp", "moe_ep")},
}  # fmt: skip


def folder(path: Path, mode: str, *rows: dict[str, Any]) -> Path:
    """One experiment of a run, with its picks in the order of the peer."""
    (path / mode).mkdir(parents=True, exist_ok=True)
    (path / mode / PICKS).write_text(csv_text([list(rows[0]), *(list(row.values()) for row in rows)]), encoding="utf-8")
    return path


def test_every_pick_is_read(tmp_path: Path) -> None:
    """Times become seconds, an aggregated pick one kind of worker, a disaggregated one two, whose string is ours."""
    picks = read_picks(folder(folder(tmp_path, "agg", AGG, AGG | {"tp": 4, "dp": 2}), "disagg", DISAGG))
    assert [(p.mode, p.rank, p.ttft_s, p.tpot_s) for p in picks] == [
        ("agg", 1, 0.9, 0.045),
        ("agg", 2, 0.9, 0.045),
        ("disagg", 1, 0.9, 0.045),
    ]
    assert picks[1].plan(16, dense=False) == "vllm:R16/PP1/ATP4/ADP2/ETP1/EP8"
    assert picks[1].plan(16, dense=True) == "vllm:R16/PP1/ATP4/ADP2"
    decode, prefill = "R10/PP1/ATP8/ADP1/ETP1/EP8", "R5/PP1/ATP8/ADP1/ETP1/EP8"
    assert picks[2].plan(5, dense=False) == f"vllm:P40:{prefill}+D80:{decode}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tpot": "fast"}, "tpot must be a number"),
        ({"tp": 0}, "tp must be a number of at least 1"),
        ({"tp": 2.5}, "tp must be a whole number, got '2.5'"),
        ({"backend": ""}, "has no column backend"),
    ],
)
def test_a_wrong_figure_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """A figure that is none is told with the file and its line."""
    with pytest.raises(InputError, match=message):
        read_picks(folder(tmp_path, "agg", AGG | change))


def test_a_folder_of_several_runs_asks_for_one(tmp_path: Path) -> None:
    """Rankings of two questions are not mixed, and a folder without picks is no result."""
    folder(tmp_path / "one", "agg", AGG)
    folder(tmp_path / "two", "agg", AGG)
    with pytest.raises(InputError, match="holds 2 runs"):
        read_picks(tmp_path)
    with pytest.raises(InputError, match="must be a result folder"):
        read_picks(tmp_path / "none")


def test_picks_are_found_in_the_ranking(tmp_path: Path) -> None:
    """A pick has our rank, both predictions at its own load, and operators that add up to the GPU time of a request."""
    other = AGG | {"tp": 4, "pp": 3, "moe_ep": 4, "num_total_gpus": 12, "concurrency": 60}
    run = folder(folder(tmp_path, "agg", AGG, other), "disagg", DISAGG)
    (run / "agg" / "top1").mkdir()
    sources = {"mix_step": {"attention": "silicon", "moe": "empirical"}}
    (run / "agg" / "top1" / SOURCES).write_text(json.dumps(sources), encoding="utf-8")
    study = load_study(STUDY)
    document = explanation_document(explain_picks(study, read_picks(run)))
    first, odd, pooled = document["picks"]
    assert first["name"] == "vllm:R16 TP8 EP8"
    assert first["rank"] == 1
    assert first["at_its_load"]["in_flight"] == 16 * 96
    assert first["not_measured_by_peer"] == ["mix_step: moe"]
    whole = sum(row["gpu_s"] for row in first["operators"])
    assert whole == pytest.approx(1000.0 / first["at_its_load"]["output_tokens_per_s_per_gpu"])
    assert first["peer"]["gpu_s_per_request"] == pytest.approx(1000.0 / 240.0)
    assert (odd["replicas"], odd["idle_gpus"], odd["rank"]) == (10, 8, None)
    assert odd["against_first"]
    assert (pooled["replicas"], pooled["idle_gpus"], pooled["at_its_load"]) == (5, 8, None)


def test_another_question_is_said(tmp_path: Path) -> None:
    """Picks for other lengths or another model are named as such, and one that no rule allows says which."""
    rows = (AGG | {"isl": 3000, "model": "Qwen/Qwen3-32B"}, AGG | {"tp": 3, "num_total_gpus": 3, "moe_ep": 3})
    found = explain_picks(load_study(STUDY), read_picks(folder(tmp_path, "agg", *rows)))
    assert len(found.differs) == 2
    assert found.picks[1].refused
    assert found.picks[1].at_our_load is None
    assert len(explanation_report(found).blocks) == 4
