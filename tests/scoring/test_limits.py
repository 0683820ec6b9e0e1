"""The tables of metrics and limits: what they say of one another, and a limit that is added by one row."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import pytest

from autotune.metrics import ESTIMATED, LOG_SDS, METRICS, OBJECTIVES
from autotune.report.document import confidence_document
from autotune.scoring import limits
from autotune.scoring.limits import (
    LIMITS,
    P_MEETS,
    LimitKind,
    check_limits,
    hard_limit,
    p_meets,
    probable,
    study_limits,
)
from autotune.study import Constraints, Study
from autotune.study.sections import PERCENTILE_FIELDS
from autotune.tuning import tune
from costmodel.estimate.error_model import TARGET_CORRELATION
from costmodel.estimate.normal import Z90, both_below
from costmodel.estimate.result import Estimate, Service, served_range
from tests.tuning.brute import evaluate, question


@dataclass(frozen=True, slots=True, kw_only=True)
class WiderConstraints(Constraints):
    """The constraints with one field more, as a new limit brings it."""

    request_s: float | None = None


SLOWEST = LimitKind(
    code="request_ms",
    title="Time of a request",
    metric="e2e_s",
    unit="ms",
    factor=1e3,
    field="request_s",
    more_in_flight="worse",
)


def asked(request_s: float | None) -> Study:
    """A study with a limit on TPOT, and one on the time of a request."""
    study = question(constraints={"tpot_ms": 40.0}, search={"max_num_batched_tokens": [2048], "min_p_meets": 0.5})
    return replace(study, constraints=WiderConstraints(**asdict(study.constraints), request_s=request_s))


def test_a_limit_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row on the time of a request is solved for, kept by every ranked plan, weighed in P(meets), and binds."""
    monkeypatch.setattr(limits, "LIMITS", (*LIMITS, SLOWEST))
    free, limited, tight = (tune(asked(bound)) for bound in (None, 2.3, 0.5))
    assert max(p.metrics["e2e_s"] for p in free.ranked) > 2.3
    assert limited.ranked
    assert limited.ranked[0].metrics["total_tokens_per_s"] < free.ranked[0].metrics["total_tokens_per_s"]
    for plan in limited.ranked:
        figures, z = plan.metrics, []
        for limit, name, sd in ((0.04, "tpot_s", "tpot_log_sd"), (2.3, "e2e_s", "throughput_log_sd")):
            assert figures[name] <= limit
            z.append(np.array([np.log(limit / figures[name]) / figures[sd]]))
        wait = plan.breakdown["ttft_parts_s"].get("kv_wait", 0.0)
        first = (figures["ttft_s"] - wait) / (figures["e2e_s"] - wait)
        common = (1.0 - first) * figures["tpot_log_sd"] + TARGET_CORRELATION * first * figures["ttft_log_sd"]
        by_hand = float(both_below(*z, np.array([common / figures["throughput_log_sd"]]))[0])
        assert plan.p_meets == pytest.approx(by_hand, rel=1e-6)
    assert not tight.ranked
    nearest = tight.infeasible[0]
    worst = next(v for v in nearest.violations if v.code == "request_ms")
    assert (worst.value, worst.limit, worst.unit) == (pytest.approx(nearest.metrics["e2e_s"] * 1e3), 500.0, "ms")
    assert "request_ms" in tight.infeasible_counts


def test_limits_bind_what_estimates_hold() -> None:
    """Every limit on a mean has a row: a figure of a service, its field, its code; those on requests are simulated."""
    names = {f.name for f in fields(Service)} | {"total_tokens_per_s_per_gpu", "output_tokens_per_s_per_gpu", P_MEETS}
    percentiles = {f"{latency}_{share}_s" for latency, share in PERCENTILE_FIELDS}
    of_requests = percentiles | {"attainment_frac"}
    constraints = {f.name for f in fields(Constraints)}
    assert {kind.metric for kind in LIMITS} <= names
    assert of_requests <= constraints
    assert {kind.field for kind in LIMITS if kind.field} == constraints - of_requests
    assert len({kind.code for kind in LIMITS}) == len(LIMITS)
    assert all(kind.field or kind.bound is not None for kind in LIMITS)


def test_what_is_sure_and_what_is_probable() -> None:
    """Memory, room and utilisation are kept or not; latency and throughput are a matter of probability.

    Of a request rate all that comes is served, or the plan is out: then a floor of throughput is kept or not.
    """
    hard = {kind.code for kind in LIMITS if hard_limit(kind.code)}
    assert hard == {"kv_capacity", "memory_util_frac", "min_gpu_util_frac"}
    lengths = {"isl": 1009, "osl": 211}
    wanted = {"ttft_ms": 900.0, "min_gpu_util_frac": 0.1, "min_output_tokens_per_s_per_gpu": 3.0}
    found = [
        [limit.code for limit in probable(study_limits(question(constraints=wanted, workload=lengths | load)))]
        for load in ({}, {"request_rate_per_s": 2.0})
    ]
    assert found == [["ttft_ms", "min_output_tokens_per_s_per_gpu"], ["ttft_ms"]]


def test_what_serves_little_more_than_comes_may_not_serve_it() -> None:
    """One standard deviation of its steps' pace above the rate it is 84 % probable, though every latency is kept."""
    study = question(constraints={"tpot_ms": 1e6}, workload={"isl": 1009, "osl": 211, "request_rate_per_s": 2.0})
    layout = next(iter(tune(study).space.candidates))
    e = evaluate(study, layout.engine, layout.layout, np.array([8.0, 8.0, 8.0]), [2048])
    spare = replace(e, spare_sd=np.array([1.0, 0.0, np.inf]), requests_per_s=np.full(3, 2.0))
    assert p_meets(study_limits(study), spare) == pytest.approx(np.array([0.841345, 0.5, 1.0]), abs=1e-5)
    loop = question(constraints={"tpot_ms": 1e6})
    assert p_meets(study_limits(loop), spare) == pytest.approx(np.ones(3))


def test_no_more_is_served_than_comes() -> None:
    """At a rate the likely range ends at it, and begins below it where what could be served at most may be less."""
    study = question(workload={"isl": 1009, "osl": 211})
    layout = next(iter(tune(study).space.candidates))
    e = evaluate(study, layout.engine, layout.layout, np.full(4, 8.0), [2048])
    sd, served = np.full(4, 0.1), np.array([2.0, 2.0, 2.0, 1.9])
    found = replace(
        e, spare_sd=np.array([5.0, 1.0, 0.0, np.inf]), throughput_log_sd=np.full(4, 0.2), requests_per_s=served
    )
    low, high = served_range(found, sd, 2.0)
    least = [1.0, np.exp(-0.1 * (Z90 - 1.0)), np.exp(-0.1 * Z90), np.exp(-0.2 * Z90)]
    assert low == pytest.approx(least)
    assert high == pytest.approx([1.0, 1.0, 1.0, 2.0 / 1.9])
    low, high = served_range(found, sd, None)
    assert low * high == pytest.approx(np.ones(4))
    assert high == pytest.approx(np.full(4, np.exp(0.2 * Z90)))


def test_a_plan_says_of_a_rate_what_is_served_of_it() -> None:
    """Ranges of what goes with the load say so everywhere: what is surely served has none, nor has what it costs."""
    layout = {"cluster": {"gpus": 8, "gpu": "h100", "price_per_gpu_hour": 2.0}}
    for load in ({"request_rate_per_s": 0.5}, {"concurrency": 8}):
        plan = tune(question(workload={"isl": 1009, "osl": 211} | load, **layout)).ranked[0]
        told = confidence_document(plan, None)
        rate = plan.metrics["requests_per_s"]
        ends = (told["requests_per_s_p10"], told["requests_per_s_p90"])
        assert ends == (rate, rate) if "concurrency" not in load else ends[0] < rate < ends[1]
        for name in ("requests_per_s", "total_tokens_per_s_per_gpu", "usd_per_million_tokens"):
            assert METRICS[name].known(plan) == ("concurrency" not in load)
        assert not METRICS["e2e_s"].known(plan)


def test_values_and_excesses_by_hand() -> None:
    """Values in each limit's unit, excess as its sign says, and nothing where there is no figure."""
    study = question(constraints={"tpot_ms": 13.0, "min_total_tokens_per_s_per_gpu": 700.0})
    layout = next(iter(tune(study).space.candidates))
    e = evaluate(study, layout.engine, layout.layout, np.array([1.0, 64.0, 4096.0]), [2048])
    asked = study_limits(study)
    check = check_limits(asked, e)
    rows = {limit.code: i for i, limit in enumerate(asked)}
    tpot, rate = check.values[rows["tpot_ms"]], check.values[rows["min_total_tokens_per_s_per_gpu"]]
    assert tpot == pytest.approx(e.tpot_s * 1000.0)
    assert rate == pytest.approx(e.total_tokens_per_s / e.gpus)
    assert check.excess[rows["tpot_ms"]] == pytest.approx(tpot - 13.0)
    assert check.excess[rows["min_total_tokens_per_s_per_gpu"]] == pytest.approx(700.0 - rate)
    assert (check.kept() == (check.excess <= 0.0).all(axis=0)).all()


def test_metrics_are_what_estimates_hold() -> None:
    """Every row but prices is a figure of an estimate, every error one that it has, and objectives have a side."""
    held = {f.name for f in fields(Estimate)} | {"total_tokens_per_s_per_gpu", "output_tokens_per_s_per_gpu"}
    assert set(ESTIMATED) <= held
    assert set(LOG_SDS) <= held
    assert {m.log_sd for m in METRICS.values() if m.log_sd} == set(LOG_SDS)
    assert all(METRICS[name].sign == (1.0 if side == "maximize" else -1.0) for name, side in OBJECTIVES.items())
    with pytest.raises(ValueError, match="must have a better side, got memory_util_frac"):
        _ = METRICS["memory_util_frac"].sign
