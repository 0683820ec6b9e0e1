"""How many sequences a rank is started for follows the arrivals of the study, by hand and against simulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.launch.limits import plan_rows, start_limits
from autotune.scoring.peaks import peak_variance, peaks_words, with_peaks
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.study import Study, study_from_document
from autotune.tuning import PlanResult, score_plan
from costmodel.serving.requests import RequestKind
from costmodel.simulation.served import Served
from costmodel.simulation.simulate import simulate


def asked(arrivals: Any, *, osl: Any = 256, rate: float = 20.0) -> Study:
    """Llama-3.1-8B on one GPU."""
    work = {"isl": 1024, "osl": osl, "arrivals": arrivals, "request_rate_per_s": rate}
    return study_from_document(
        {
            "model": "llama-3.1-8b",
            "engine": "vllm",
            "cluster": {"gpus": 1, "gpu": "h100_sxm"},
            "workload": work,
            "search": {"max_num_batched_tokens": [8192]},
        },
        Path("study.toml"),
    )


def scored(study: Study) -> PlanResult:
    """Its only plan."""
    found = score_plan(study, "TP1").result
    assert found is not None
    return found


def test_variance_by_hand() -> None:
    """Equal outputs follow the gaps, uniform ones from 0 do by two thirds, kinds by the shorter of two."""
    assert peak_variance(asked("poisson", osl={"min": 1, "max": 900}).workload) == 1.0
    assert peak_variance(asked({"cv": 3.0}).workload) == 9.0
    assert peak_variance(asked("constant").workload) == 0.0
    uniform = asked("constant", osl={"min": 1, "max": 1999}).workload
    assert peak_variance(uniform) == pytest.approx(1.0 - 2.0 / 3.0, abs=1e-3)
    kinds = tuple(RequestKind(isl=100.0, osl=osl, weight=0.5) for osl in (100.0, 300.0))
    mixed = replace(asked({"cv": 2.0}).workload, points=kinds)
    assert peak_variance(mixed) == pytest.approx(1.0 + 3.0 * (0.25 * (100.0 + 100.0 + 100.0 + 300.0)) / 200.0)
    closed = replace(mixed, request_rate_per_s=None, concurrency=8)
    assert peak_variance(closed) == 1.0


def test_peaks_by_hand() -> None:
    """Three standard deviations, or a fifth where that is more."""
    assert [with_peaks(64, variance) for variance in (0.0, 1.0, 9.0)] == [77, 88, 136]
    assert with_peaks(1000, 1.0) == 1200
    assert peaks_words(64, 0.0) != peaks_words(64, 1.0) != peaks_words(64, 9.0)


def test_no_more_than_a_closed_loop_has() -> None:
    """One rank is not started for more requests than there are in flight."""
    study = asked("poisson")
    study = replace(study, workload=replace(study.workload, request_rate_per_s=None, concurrency=200))
    plan = scored(study)
    assert start_limits(plan_rows(study, plan), plan, "routed").max_num_seqs == plan.knobs.max_num_seqs == 200


@pytest.mark.parametrize(("arrivals", "seqs"), [("constant", 77), ("poisson", 88), ({"cv": 3.0}, 136)])
def test_exports_follow_the_arrivals(arrivals: Any, seqs: int) -> None:
    """A server of the same plan is started for more sequences the more unevenly requests come."""
    study = asked(arrivals)
    plan = scored(study)
    plan = replace(plan, knobs=replace(plan.knobs, max_num_seqs=64))
    limits = start_limits(plan_rows(study, plan), plan, "none")
    assert limits.max_num_seqs == seqs


@pytest.mark.parametrize("arrivals", ["constant", "poisson", {"cv": 3.0}])
def test_variance_is_that_of_a_simulation(arrivals: Any) -> None:
    """The number in flight varies as the formula says to a factor, which requests that slow each other down add to."""
    study = asked(arrivals, osl={"min": 20, "max": 480}, rate=8.0)
    plan = scored(study)
    found = simulate_plan(study, plan, study_traffic(study, count=4000), with_range=False)
    served = simulate(found.server.part.paced(found.forecast.errors.pace), found.traffic.requests).served
    told, simulated = peak_variance(study.workload), _variance(served)
    assert 0.4 < told / simulated < 1.2
    assert told == 1.0 or abs(np.log(told / simulated)) < abs(np.log(1.0 / simulated))


def _variance(served: Served) -> float:
    """Variance over mean of the requests in flight, in the midst of the run."""
    begins, ends = np.sort(served.requests.arrival_s), np.sort(served.finish_s)
    times = np.concatenate([begins, ends])
    order = np.argsort(times, kind="stable")
    held = np.cumsum(np.where(order < begins.size, 1.0, -1.0))[:-1]
    counts = (times[order][:-1] >= np.quantile(begins, 0.2)) & (times[order][:-1] < np.quantile(begins, 0.8))
    lasts = np.diff(times[order])[counts]
    mean = float(np.average(held[counts], weights=lasts))
    return float(np.average((held[counts] - mean) ** 2, weights=lasts)) / mean
