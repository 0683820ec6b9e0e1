"""What was never measured is never called sure."""

from __future__ import annotations

import pytest

from autotune.comparison import compare
from autotune.report.reach import APART, reach_line, reach_of_one
from autotune.report.verdict import tune_verdict
from autotune.scoring.reach import SURE_BEYOND_REACH, apart, bounded, unmeasured
from autotune.study import load_study
from autotune.tuning import PlanResult, score_plan, tune
from tests.studies import FOLDER


def scored(plan: str, *settings: str, study: str = "deepseek-v3-128xh200.toml") -> tuple[PlanResult, tuple[str, ...]]:
    """A plan of a study, and what of it was never measured."""
    asked = load_study(FOLDER / study, settings)
    found = score_plan(asked, plan).result
    assert found is not None
    return found, unmeasured(asked, found)


@pytest.mark.parametrize(
    ("plan", "settings", "kinds"),
    [
        ("R16 TP8 EP8", (), ()),
        ("R8 PP2 TP8 EP8", (), ("pipeline", "nodes")),
        ("R16 PP2 TP4 EP4", (), ("pipeline",)),
        ("R8 TP16 EP16", (), ("nodes",)),
        ("R16 TP4 DP2 EP8", (), ("attention_dp",)),
        ("trtllm:R16 DP8 EP8", ("engine=any",), ()),
        ("R16 TP8 EP8", ("model=qwen3-235b", "cluster.gpu=mi300x"), ("gpu",)),
        ("R8 TP16 EP16", ("cluster.gpu=gb200", "cluster.gpus_per_node=4"), ("wide",)),
        ("R16 TP8 ETP8", ("speculative={draft_tokens=1,accepted_per_step=1.7}",), ("speculative",)),
    ],
)
def test_kinds(plan: str, settings: tuple[str, ...], kinds: tuple[str, ...]) -> None:
    """Stages, nodes, width, attention-DP, GPU and speculation are told apart."""
    assert set(kinds) <= set(scored(plan, *settings)[1])
    if not settings:
        assert scored(plan)[1] == kinds


def test_widths_grow_beyond_reach() -> None:
    """The same model is known less on a GPU that nobody measured, and in a replica of sixteen than of eight GPUs."""
    for sd in ("ttft_log_sd", "tpot_log_sd"):
        known = scored("R16 TP8 EP8")[0].metrics[sd]
        assert scored("R8 TP16 EP16")[0].metrics[sd] > known
        assert scored("R16 TP8 EP8", "cluster.gpu=mi300x", "engine=vllm")[0].metrics[sd] > known


def test_a_bound_is_no_floor() -> None:
    """A probability is pulled in from both sides, and only where something was not measured."""
    assert [bounded(p, ("nodes",)) for p in (0.0, 0.5, 0.98)] == pytest.approx([1 - SURE_BEYOND_REACH, 0.5, 0.8])
    assert bounded(0.98, (), ()) == 0.98


def test_no_switch_to_or_from_what_was_never_measured() -> None:
    """A large gain over a plan that spans nodes is measured first, in tune as in compare, with one probability."""
    study = load_study(FOLDER / "deepseek-v3-128xh200.toml")
    result = tune(study)
    verdict = tune_verdict(result, "first")
    assert verdict.badge == "Measure first"
    assert "several nodes" in verdict.reach
    p = result.confidence[result.ranked[0].plan].p_better_than_baseline
    assert p is not None
    assert p <= SURE_BEYOND_REACH
    found = compare(study, scenarios=False)
    assert (found.verdict.verdict, found.verdict.rule) == ("undecided", "not_measured")
    assert found.p_better == pytest.approx(p, abs=0.02)


def test_what_was_measured_is_said_too() -> None:
    """Within the measurements the line says so, and a switch is a switch."""
    study = load_study(FOLDER / "llama-70b-16xh100.toml", ["baseline.plan=R4 TP4", "workload.request_rate_per_s=4"])
    result = tune(study)
    assert reach_line(study, result.ranked[0], None if result.baseline is None else result.baseline.result).startswith(
        "Measured:"
    )
    assert tune_verdict(result, "first").badge in ("Switch", "Keep", "Measure first")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (("search.weight_dtype=['fp8']",), ""),
        ((), "precision"),
        (("search.weight_dtype=['int4']",), "precision"),
        (("model=meta-llama/Llama-3.1-70B-AWQ-INT4", "cluster.gpu=b200"), "precision"),
        (("model=meta-llama/Llama-3.1-70B-NVFP4", "cluster.gpu=b200"), ""),
        (("model=llama-3.1-8b",), "apart"),
    ],
)
def test_a_precision_that_was_not_measured_is_said(settings: tuple[str, ...], kind: str) -> None:
    """Runs of the model, the GPU and the engine say less of a plan whose weights are stored otherwise."""
    study = load_study(FOLDER / "llama-70b-16xh100.toml", ["baseline.plan=tp8", *settings])
    found = score_plan(study, "R4 TP4").result
    assert found is not None
    assert unmeasured(study, found) == ()
    assert apart(study, found) == kind
    assert APART[kind] in reach_line(study, found, None)
    assert reach_line(study, found, found) == reach_of_one(study, found)
