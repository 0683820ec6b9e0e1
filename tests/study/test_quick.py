"""Studies made of options, and GPU counts that a study leaves open."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.study import load_study
from autotune.study.quick import quick_study
from costmodel.errors import InputError
from tests.studies import FOLDER

GIVEN = {"model": "deepseek-v3", "gpus": 128, "gpu": "h200", "isl": 4000, "osl": 1000}


def test_a_quick_study_is_the_study_of_its_options(tmp_path: Path) -> None:
    """The file that options stand for reads as what they say."""
    file = tmp_path / "quick.toml"
    given = {**GIVEN, "engine": "any", "ttft": 5000.0, "tpot": 49.5, "rate": 12.5, "baseline": 'R16 TP8 "EP8'[:6]}
    file.write_text(quick_study(given), encoding="utf-8")
    study = load_study(file)
    assert (study.engine, study.cluster.gpus, study.cluster.gpu.name) == ("any", 128, "h200_sxm")
    assert (study.constraints.ttft_s, study.constraints.tpot_s) == (5.0, 0.0495)
    assert study.workload.request_rate_per_s == 12.5
    assert study.baseline is not None
    assert study.objective.metric == "output_tokens_per_s_per_gpu"


def test_every_missing_option_is_named() -> None:
    """All that is needed is said at once."""
    with pytest.raises(InputError, match="--gpus") as raised:
        quick_study({"model": "deepseek-v3"})
    assert [p.path for p in raised.value.problems] == ["--gpus", "--gpu", "--isl", "--osl"]


def test_the_fewest_gpus_are_looked_for_by_themselves() -> None:
    """Where GPUs are minimised and no counts are named, multiples of what holds the weights, and nodes of many."""
    name, rate = FOLDER / "llama-70b-16xh100.toml", "workload.request_rate_per_s=4"
    study = load_study(name, ["objective.minimize=gpus", rate, "cluster.gpus=32"])
    assert study.axes.gpu_counts == tuple(range(2, 33, 2))
    assert any(text.startswith("search.gpus not given: 2, 4, 6, 8") for text in study.assumptions)
    large = load_study(name, ["objective.minimize=gpus", rate, "cluster.gpus=1024"])
    assert large.axes.gpu_counts == (2, 4, 6, *range(16, 1025, 16))
    whole = load_study(name, ["objective.minimize=gpus", rate, "model=deepseek-v3", "baseline.plan=TP8"])
    assert whole.axes.gpu_counts == (8, 16)
    ranged = load_study(name, ["objective.minimize=gpus", rate, "search.gpus={min=4,max=12}"])
    assert ranged.axes.gpu_counts == (4, 8, 12, 16)
    stepped = load_study(name, ["objective.minimize=gpus", rate, "search.gpus={min=2,max=9,step=3}"])
    assert stepped.axes.gpu_counts == (2, 5, 8, 16)
    assert load_study(name, [rate]).axes.gpu_counts == ()


@pytest.mark.parametrize("given", ["{min=9,max=3}", "{min=0,max=3}", "{min=1}", "{min=1,max=2000000}"])
def test_a_range_that_is_none_is_refused(given: str) -> None:
    """Nothing is searched under a range without meaning."""
    with pytest.raises(InputError, match=r"search\.gpus"):
        load_study(FOLDER / "llama-70b-16xh100.toml", [f"search.gpus={given}"])
