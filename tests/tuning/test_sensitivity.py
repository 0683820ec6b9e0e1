"""The winner under a changed study: against answering the changed study itself."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

from autotune.scoring.objective import plan_expected
from autotune.study import IntRange, Study, load_study
from autotune.tuning import TuneResult, tune
from autotune.tuning.sensitivity import AxisSensitivity, Sensitivity, sensitivity
from costmodel.serving.requests import RequestKind
from tests.tuning.brute import question

STUDIES = Path(__file__).resolve().parents[2] / "studies"
FACTORS = (0.5, 1.0, 2.0)


@lru_cache(maxsize=4)
def answered(name: str) -> tuple[TuneResult, Sensitivity]:
    """A shipped study, answered once for all tests."""
    result = tune(load_study(STUDIES / f"{name}.toml", ("search.max_num_batched_tokens=[1024]",)))
    found = sensitivity(result, factors=FACTORS)
    assert found is not None
    return result, found


def axis(found: Sensitivity, name: str) -> AxisSensitivity:
    return next(a for a in found.axes if a.name == name)


@pytest.mark.parametrize("name", ["reference-128", "llama-70b-16xh100"])
def test_nothing_changed_keeps_the_winner(name: str) -> None:
    """At a factor of 1 the winner is first and loses nothing, on every axis."""
    result, found = answered(name)
    assert found.chosen == result.ranked[0].plan
    for along in found.axes:
        here = next(p for p in along.points if p.factor == 1.0)
        assert (here.best, here.loss_frac, here.told_apart) == (found.chosen, 0.0, False)
        assert not [f for f in along.flips if f.factor == 1.0]


@pytest.mark.parametrize(
    ("name", "axis_name", "factor", "override"),
    [
        ("reference-128", "hbm_bandwidth", 0.5, "cluster.gpu.hbm_tb_per_s=0.9"),
        ("reference-128", "load", 2.0, "workload.concurrency=256"),
        ("reference-128", "osl", 0.5, "workload.osl=64"),
        ("llama-70b-16xh100", "load", 2.0, "workload.request_rate_per_s=16"),
    ],
)
def test_a_point_is_the_changed_study_answered(name: str, axis_name: str, factor: float, override: str) -> None:
    """Writing the changed figure into the study file and tuning it gives the same first plan and the same loss."""
    result, found = answered(name)
    changed = tune(load_study(STUDIES / f"{name}.toml", (override, "search.max_num_batched_tokens=[1024]")))
    point = next(p for p in axis(found, axis_name).points if p.factor == factor)
    assert point.best == (changed.ranked[0].plan if changed.ranked else None)
    mine = next(p for p in (*changed.ranked, *changed.infeasible) if p.plan == found.chosen)
    assert (point.chosen_expected is not None) == mine.feasible
    assert point.chosen_breaks == tuple(v.code for v in mine.violations)
    if mine.feasible:
        metric = result.study.objective.metric
        weight = 1.0 if result.study.objective.direction == "minimize" else mine.p_meets
        assert point.chosen_expected == pytest.approx(mine.metrics[metric] * weight)


def test_what_keeping_the_winner_loses() -> None:
    """Of what the first plan there can be expected to do, the share that the winner does less; some change costs it."""
    losses = []
    for name, sign in (("reference-128", 1.0), ("llama-70b-16xh100", -1.0)):
        for along in answered(name)[1].axes:
            for point in along.points:
                if point.loss_frac is not None:
                    assert point.best_expected is not None
                    assert point.chosen_expected is not None
                    less = sign * (point.best_expected - point.chosen_expected) / point.best_expected
                    assert point.loss_frac == pytest.approx(max(less, 0.0), abs=1e-12)
                    losses.append(point.loss_frac)
    assert max(losses) > 0.0


def changed(study: Study, name: str, factor: float) -> Study:
    """The study with one figure changed, written out once more."""
    gpu, work = study.cluster.gpu, study.workload
    if name == "hbm_bandwidth":
        gpu = replace(gpu, hbm_bytes_per_s=gpu.hbm_bytes_per_s * factor)
    elif name == "link_bandwidth":
        inside, between = gpu.scaleup_bytes_per_s * factor, gpu.scaleout_bytes_per_s * factor
        gpu = replace(gpu, scaleup_bytes_per_s=inside, scaleout_bytes_per_s=between)
    elif name == "load":
        assert work.concurrency is not None
        work = replace(work, concurrency=round(work.concurrency * factor))
    else:
        tokens = round(getattr(work, name).min * factor)
        span = IntRange(min=tokens, max=tokens)
        work = replace(work, isl=span, longest_prompt=tokens) if name == "isl" else replace(work, osl=span)
    return replace(study, workload=work, cluster=replace(study.cluster, gpu=gpu))


def test_a_flip_is_where_the_first_place_changes_hands() -> None:
    """Just short of each flip the winner is first, at the flip the plan that is named, both answered from scratch."""
    result, found = answered("reference-128")
    seen = 0
    for along in found.axes:
        for flip in along.flips:
            short = flip.factor * (1.02 if flip.factor < 1.0 else 1.0 / 1.02)
            at, before = (tune(changed(result.study, along.name, f)).ranked for f in (flip.factor, short))
            assert (at[0].plan if at else None) == flip.to
            assert before[0].plan == found.chosen
            seen += 1
    assert seen >= 1


def test_a_broken_limit_is_named_and_is_a_mistake_to_keep() -> None:
    """With a limit that the best plan barely keeps, slower HBM leaves no plan: the flip is to none, by that limit."""
    most = max(p.metrics["stage_tokens_per_s_per_gpu"] for p in answered("reference-128")[0].ranked)
    tight = f"constraints.min_stage_tokens_per_s_per_gpu={0.97 * most}"
    found = sensitivity(tune(load_study(STUDIES / "reference-128.toml", (tight,))), factors=FACTORS)
    assert found is not None
    flip = next(f for f in axis(found, "hbm_bandwidth").flips if f.factor < 1.0)
    assert flip.end.best is None
    assert flip.end.chosen_breaks[0] == "min_stage_tokens_per_s_per_gpu"
    assert flip.end.best_expected is None
    assert flip.end.loss_frac is None


def test_factors_beyond_the_context_are_left_out() -> None:
    """A context of 20,000 tokens holds prompts of 10,240 and outputs of 128, but not twice as long prompts."""
    study = load_study(STUDIES / "reference-128.toml", ("model.max_position_embeddings=20000",))
    found = sensitivity(tune(study), factors=FACTORS)
    assert found is not None
    assert [p.factor for p in axis(found, "isl").points] == [0.5, 1.0]
    assert [p.factor for p in axis(found, "osl").points] == [0.5, 1.0, 2.0]


def test_an_open_load_is_the_winners() -> None:
    """Where the study solves for the load, the axis starts from what the winner was solved for, and says so."""
    study = load_study(
        STUDIES / "deepseek-v3-128xh200.toml",
        ("search.max_num_batched_tokens=[2048]", "cluster.gpus=32", "baseline.plan=ADP8+EP"),
    )
    result = tune(study)
    found = sensitivity(result, factors=(1.0, 4.0))
    assert found is not None
    load = axis(found, "load")
    assert load.load_is_chosen
    assert load.base == result.ranked[0].knobs.concurrency
    assert "tpot_ms" in load.points[-1].chosen_breaks
    assert load.points[-1].told_apart is (load.points[-1].best is not None)


def test_without_a_feasible_plan_there_is_nothing_to_be_sensitive() -> None:
    """A study that nothing answers has no winner."""
    assert sensitivity(tune(load_study(STUDIES / "infeasible-example.toml"))) is None


@pytest.mark.parametrize("factors", [(), (0.5, 2.0), (1.0, 0.5), (0.0, 1.0)])
def test_factors_hold_one_and_ascend(factors: tuple[float, ...]) -> None:
    """Factors that lack the study itself, or are out of order, are the caller's mistake."""
    result, _ = answered("reference-128")
    with pytest.raises(ValueError, match="factors must be positive, ascending and hold 1"):
        sensitivity(result, factors=factors)


def test_kinds_of_requests_all_grow() -> None:
    """Traffic of several kinds is scaled kind by kind, the mean with them: no axis stands still."""
    result, _ = answered("reference-128")
    work = result.study.workload
    kinds = (RequestKind(isl=5_120.0, osl=64.0, weight=0.5), RequestKind(isl=15_360.0, osl=192.0, weight=0.5))
    mixed = replace(
        work,
        isl=IntRange(min=5_120, max=15_360, average=10_240.0),
        osl=IntRange(min=64, max=192, average=128.0),
        points=kinds,
    )
    found = sensitivity(tune(replace(result.study, workload=mixed)), factors=FACTORS)
    assert found is not None
    for name in ("isl", "osl"):
        values = [p.chosen_expected for p in axis(found, name).points if p.chosen_expected is not None]
        assert len(values) == len(set(values)) >= 2
    assert axis(found, "isl").base == 10_240.0
    study = replace(result.study, workload=mixed.longer(outputs=0.5))
    best, point = tune(study).ranked[0], axis(found, "osl").points[0]
    assert (point.factor, point.best) == (0.5, best.plan)
    assert point.best_expected == pytest.approx(plan_expected(study, best), rel=1e-12)


def test_at_a_rate_a_choice_loses_the_time_of_a_request() -> None:
    """Plans serve alike there: where another is first, the study's choice loses by how much longer a request takes."""
    workload = {"isl": 3000, "osl": 300, "request_rate_per_s": 2.0}
    result = tune(question("qwen3-32b", 8, workload=workload, constraints={"ttft_ms": 1500, "tpot_ms": 40}))
    sure = [p for p in result.ranked[1:] if p.p_meets > 0.9999][-1]
    found = sensitivity(replace(result, ranked=[sure, *(p for p in result.ranked if p is not sure)]))
    as_it_is = [p for axis in found.axes for p in axis.points if p.factor == 1.0]
    assert as_it_is
    for p in as_it_is:
        assert p.loses_time
        assert (p.loss_frac or 0.0) > 0.05
