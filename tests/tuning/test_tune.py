"""Answers to whole studies: exhaustive truth, solved knobs, the baseline, storage, sampling."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from autotune.report.document import tune_document
from autotune.scoring.limits import check_limits, study_limits
from autotune.scoring.objective import plan_expected
from autotune.scoring.trial_record import Recorder, study_header
from autotune.scoring.unsure_means import AT_A_RATE, IN_A_LOOP, prompts_fill
from autotune.storage import open_store
from autotune.study import Study, load_study
from autotune.tuning import TuneResult, score_plan, tune
from costmodel.errors import InputError
from costmodel.estimate.normal import normal_cdf, p_below
from tests.tuning.brute import best_by_plan, question

ROOT = Path(__file__).resolve().parents[2]


def study(name: str = "deepseek-v3-128xh200", *overrides: str) -> Study:
    """A shipped study with some fields changed."""
    return load_study(ROOT / "studies" / f"{name}.toml", overrides)


SMALL = (
    "cluster.gpus=8",
    "model=gpt-oss-120b",
    "baseline.plan=tp8",
    "constraints.tpot_ms=30",
    "constraints.ttft_ms=2000",
)


def _values(loaded: Study, result: TuneResult) -> dict[str, float]:
    return {p.plan: plan_expected(loaded, p) for p in result.ranked}


def test_exhaustive_truth() -> None:
    """Every layout with every concurrency and chunk, evaluated one by one, has no better plan than `tune` finds."""
    loaded = study("deepseek-v3-128xh200", *SMALL, "search.max_num_batched_tokens=[2048,8192]")
    result = tune(loaded)
    truth = best_by_plan(loaded, range(1, 700))
    best, name = max((value, plan) for plan, value in truth.items())
    top = result.ranked[0]
    assert plan_expected(loaded, top) == pytest.approx(best, rel=1e-9)
    assert _values(loaded, result)[name] == pytest.approx(best, rel=1e-9)


def test_the_most_within_the_limits_leaves_no_room() -> None:
    """One request more per replica breaks a limit or waits for KV room."""
    from autotune.scoring.knob_grid import KnobGrid, Variant
    from autotune.scoring.solve_concurrency import most_within_limits

    loaded = study("deepseek-v3-128xh200", *SMALL, "search.min_p_meets=0.0")
    space = tune(loaded).space
    rows = KnobGrid.of(
        loaded, [Variant(candidate=c, weight_dtype=None, kv_dtype=None) for c in space.candidates], [8192]
    )
    limits = tuple(x for x in study_limits(loaded) if x.kind.more_in_flight == "worse")
    solved = most_within_limits(rows)
    replicas = rows.batch.layout.replicas
    here, beyond = rows.evaluate(solved), rows.evaluate(solved + replicas)
    kept = check_limits(limits, here).kept() & (here.kv_wait_s <= 0)
    broken = ~check_limits(limits, beyond).kept() | (beyond.kv_wait_s > 0)
    assert kept.any()
    assert broken.all()
    assert (kept | (solved == replicas)).all()


def test_open_arrivals_take_the_fewest_in_flight() -> None:
    """A rate that a plan can serve is reached, and hardly exceeded."""
    loaded = study("llama-70b-16xh100")
    rate = loaded.workload.request_rate_per_s
    assert rate is not None
    result = tune(loaded)
    for plan in result.ranked:
        assert plan.metrics["requests_per_s"] >= rate * (1 - 1e-5)
        assert plan.knobs.concurrency >= plan.layout.replicas


def _document(result: TuneResult) -> dict[str, object]:
    document = tune_document(result, top=0)
    return {k: v for k, v in document.items() if k not in ("scored_now", "storage")}


def test_the_same_study_again_scores_nothing(tmp_path: Path) -> None:
    """A second run answers from the storage, with the same document."""
    loaded = study("reference-128")

    def run() -> TuneResult:
        store = open_store(tmp_path / "journal.log", study_header(loaded))
        return tune(loaded, store)

    first, second = run(), run()
    assert first.scored_now == len(first.space.candidates)
    assert second.scored_now == 0
    assert json.dumps(_document(first), sort_keys=True) == json.dumps(_document(second), sort_keys=True)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    """With part of the plans stored, only the rest is scored and the answer is that of an unbroken run."""
    from autotune.scoring.best_knobs import score

    loaded = study("reference-128")
    whole = tune(loaded)
    store = open_store(tmp_path / "journal.log", study_header(loaded))
    part = score(loaded, whole.space.candidates[::3])
    recorder = Recorder.of(loaded, whole.space.candidates)
    store.add([recorder.record(p) for p in part])
    rest = tune(loaded, store)
    assert rest.scored_now == len(whole.space.candidates) - len(part)
    assert _document(rest) == _document(whole)


def test_processes_give_what_one_gives() -> None:
    """Two jobs, the same document."""
    loaded = study("reference-128")
    assert _document(tune(loaded, jobs=2)) == _document(tune(loaded))


def test_sampling_is_bounded_seeded_and_marked() -> None:
    """A budget below the space samples it, the same way each time, and says that it is not complete."""
    loaded = study("deepseek-v3-128xh200", "search.trials=40")
    first, second = tune(loaded), tune(loaded)
    assert not first.complete
    assert len(first.ranked) + len(first.infeasible) == 40
    assert _document(first) == _document(second)


def test_confidence_is_coherent() -> None:
    """The first plan is never told apart from itself, and the further down the surer the order."""
    result = tune(study("deepseek-v3-128xh200"))
    sure: Sequence[float] = [result.confidence[p.plan].p_best_is_better for p in result.ranked]
    assert sure[0] == 0.0
    assert result.confidence[result.ranked[0].plan].among_best
    assert sure[-1] > 0.9
    assert all(0.0 <= (result.confidence[p.plan].p_better_than_baseline or 0.0) <= 1.0 for p in result.ranked)


def test_normal_distribution() -> None:
    """Against values of standard tables."""
    assert normal_cdf(np.array([0.0, 1.0, -1.96, 10.0])) == pytest.approx([0.5, 0.841345, 0.024998, 1.0], abs=1e-6)
    assert p_below(2.0, np.array([2.0, 1.0]), np.array([0.3, 0.0])) == pytest.approx([0.5, 1.0])


CONTRACT = {
    "plan": {
        "rank",
        "plan",
        "layout",
        "knobs",
        "engine",
        "feasible",
        "violations",
        "metrics",
        "breakdown",
        "vs_baseline",
    },
    "layout": {"replicas", "pp", "stage_layers", "attn_tp", "attn_dp", "attn_cp", "moe_tp", "moe_ep"},
    "knobs": {"concurrency", "max_num_batched_tokens"},
    "metrics": {
        "ttft_s",
        "tpot_s",
        "total_tokens_per_s",
        "output_tokens_per_s",
        "total_tokens_per_s_per_gpu",
        "output_tokens_per_s_per_gpu",
        "requests_per_s",
        "memory_util_frac",
        "gpu_util_frac",
    },
}


def test_fields_of_the_document() -> None:
    """Names that programs rely on."""
    document = tune_document(tune(study("infeasible-example")), top=0)
    assert set(document) >= {"study", "complete", "counts", "assumptions", "baseline", "plans"}
    assert set(document["counts"]) == {"enumerated", "valid", "feasible", "rejected", "infeasible"}
    for plan in document["plans"]:
        assert set(plan) >= CONTRACT["plan"]
        for name in ("layout", "knobs", "metrics"):
            assert set(plan[name]) >= CONTRACT[name]
        for violation in plan["violations"]:
            assert set(violation) == {"code", "value", "limit", "excess", "unit"}
    json.dumps(document, allow_nan=False)


def test_plans_that_prompts_fill_are_told_apart() -> None:
    """Long prompts and enough of them: stages hardly run anything else. Longer outputs leave time between prompts."""
    loads: tuple[tuple[dict[str, float], str, bool], ...] = (
        ({"osl": 80, "concurrency": 24}, IN_A_LOOP, True),
        ({"osl": 800, "concurrency": 2}, IN_A_LOOP, False),
        ({"osl": 80, "request_rate_per_s": 15.0}, AT_A_RATE, True),
        ({"osl": 800, "request_rate_per_s": 0.2}, AT_A_RATE, False),
    )
    for load, words, fill in loads:
        answer = tune(question("llama-3.1-8b", 4, workload={"isl": 8000, **load}, engine="vllm"))
        assert prompts_fill(answer.ranked[0]) is fill
        assert any(words in text for text in tune_document(answer, top=1)["assumptions"]) is fill


@pytest.mark.parametrize("text", ["best", "1", "# 3"])
def test_a_rank_where_no_plan_keeps_the_limits(text: str) -> None:
    """It is said that none does, and which is the nearest: there is no rank to give."""
    study = question("llama-3.1-8b", 4, workload={"isl": 1009, "osl": 64}, constraints={"tpot_ms": 0.1})
    nearest = tune(study).infeasible[0].plan
    with pytest.raises(InputError, match=rf"^--plan: must be a plan string, as no plan keeps every limit .*{nearest}"):
        score_plan(study, text, path="--plan")
