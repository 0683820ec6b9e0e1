"""A current plan whose engine is started in a way of its own: scored so wherever it is looked at, and no other plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autotune.comparison import compare
from autotune.comparison.best import at_capacity
from autotune.disaggregated.rescore import rescored, rescored_each
from autotune.report.comparison import comparison_document
from autotune.scoring.reach import unmeasured
from autotune.simulation.report_simulation import simulation_document
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.study import Baseline, EngineOptions, OwnOptions, Study, own_option_words
from autotune.tuning import PlanResult
from autotune.tuning.given_plan import score_baseline
from costmodel.errors import InputError
from costmodel.serving.requests import RequestKind
from tests.comparison.helpers import dense, scored

LIMITS = {"ttft_ms": 1000, "tpot_ms": 40}
DRAFTS = {"draft_tokens": 3, "accepted_per_step": 2.2}
OWN: dict[str, dict[str, Any]] = {
    "seats": {"max_num_seqs": 4},
    "eager": {"cuda_graphs": False},
    "memory": {"gpu_memory_utilization": 0.27},
    "all": {"max_num_seqs": 3, "cuda_graphs": False, "gpu_memory_utilization": 0.27},
}


def study(own: dict[str, Any] | None = None, **tables: Any) -> Study:
    """With a baseline of 16 replicas, started with `own`, and 256 requests in flight unless tables say otherwise."""
    baseline = {"plan": "R16"} | ({} if own is None else {"engine_options": own})
    work = {"isl": 1009, "osl": 211, "concurrency": 256}
    return dense(**{"constraints": LIMITS, "baseline": baseline, "workload": work, **tables})


def current(asked: Study) -> PlanResult:
    """The baseline, which can be launched."""
    found = score_baseline(asked)
    assert found is not None
    assert found.result is not None
    return found.result


def whole(own: dict[str, Any]) -> Study:
    """The question in which every plan is started so, its baseline left as it is."""
    return study(engine_options=own)


@pytest.mark.parametrize("name", OWN)
def test_it_is_scored_as_a_study_of_such_options_scores_it(name: str) -> None:
    """Metrics, limits and time of the current plan are those under a study whose options these are."""
    mine, usual = current(study(OWN[name])), scored(whole(OWN[name]), "R16")
    assert mine.metrics == usual.metrics
    assert mine.margins == usual.margins
    assert mine.breakdown == usual.breakdown
    assert mine.metrics != scored(study(), "R16").metrics


@pytest.mark.parametrize("name", OWN)
def test_candidates_are_scored_with_the_study_s_own(name: str) -> None:
    """Whatever the current plan is started with, the candidate's figures are the same."""
    plain, own = (compare(study(options), scenarios=False).candidate for options in (None, OWN[name]))
    assert plain is not None
    assert own is not None
    assert plain.result == own.result
    assert plain.capacity_requests_per_s == own.capacity_requests_per_s


@pytest.mark.parametrize("name", OWN)
def test_it_keeps_its_options_under_other_traffic(name: str) -> None:
    """Scored again beside another plan, at its capacity and simulated, it is as under a study of such options."""
    mine, theirs, asked = current(study(OWN[name])), scored(study(), "R8/TP2"), study(OWN[name])
    twice = replace(asked, workload=asked.workload.longer(prompts=2.0))
    of_all = replace(whole(OWN[name]), workload=twice.workload)
    both = rescored_each(twice, [mine, theirs])
    assert both[0].metrics == pytest.approx(rescored(of_all, scored(of_all, "R16")).metrics, rel=1e-12)
    assert both[1].metrics == pytest.approx(rescored(twice, theirs).metrics, rel=1e-12)
    assert [p.own_options for p in both] == [mine.own_options, None]
    most, usual = at_capacity(asked, mine), at_capacity(whole(OWN[name]), scored(whole(OWN[name]), "R16"))
    served = [0.0 if p is None else p.metrics["requests_per_s"] for p in (most, usual)]
    assert served[0] == pytest.approx(served[1], rel=1e-3)
    traffic = study_traffic(asked, count=300)
    waits = [simulate_plan(s, p, traffic, with_range=False) for s, p in ((asked, mine), (whole(OWN[name]), mine))]
    assert waits[0].forecast.latency("ttft", "mean").value == waits[1].forecast.latency("ttft", "mean").value
    usually = simulate_plan(asked, replace(mine, own_options=None), traffic, with_range=False)
    if name != "memory":
        assert waits[0].forecast.latency("e2e", "mean").value > usually.forecast.latency("e2e", "mean").value


def test_kinds_of_requests_are_each_plan_s_own() -> None:
    """Rows of several kinds of requests keep the options of their plans apart."""
    kinds = (RequestKind(isl=500.0, osl=100.0, weight=0.5), RequestKind(isl=1500.0, osl=300.0, weight=0.5))
    asked = study(OWN["all"], speculative=DRAFTS)
    asked = replace(asked, workload=replace(asked.workload, points=kinds))
    own = OwnOptions(max_num_seqs=3, cuda_graphs=False, speculative=False)
    one, other = replace(current(asked), own_options=own), scored(asked, "R8/TP2")
    assert rescored_each(asked, [one, other])[0].metrics == pytest.approx(rescored(asked, one).metrics, rel=1e-12)
    assert rescored_each(asked, [other, one])[0].metrics == pytest.approx(rescored(asked, other).metrics, rel=1e-12)


def test_speculation_of_the_study_may_be_off() -> None:
    """A server that drafts nothing is scored as a study without speculation scores it, and is as well measured."""
    plain, asked = scored(study(), "R16"), study({"speculative": False}, speculative=DRAFTS)
    found = current(asked)
    assert found.metrics == plain.metrics
    assert scored(asked, "R16").metrics["tpot_s"] < plain.metrics["tpot_s"]
    assert "speculative" in unmeasured(asked, scored(asked, "R16"))
    assert "speculative" not in unmeasured(asked, found)


def test_what_is_the_study_s_own_is_no_option_of_its_own() -> None:
    """Options that are given and equal the study's change nothing and are not said."""
    usual = EngineOptions()
    same = {name: getattr(usual, name) for name in ("max_num_seqs", "gpu_memory_utilization", "cuda_graphs")}
    assert current(study(same)) == current(study())
    assert own_option_words(study(), current(study(same)).own_options) == ()


@pytest.mark.parametrize(("seats", "binds"), [(15, True), (27, True), (28, False), (2000, False)])
def test_sequences_count_where_they_are_fewer_than_an_export_starts(seats: int, binds: bool) -> None:
    """With 16 in flight on each of 16 ranks exports start 28 (three standard deviations more): as good as 1,024."""
    found = current(study({"max_num_seqs": seats}))
    assert (found.own_options is not None) is binds
    assert compare(study({"max_num_seqs": seats}), candidate="R16", scenarios=False).same_plan is not binds


def test_more_sequences_than_the_study_s_count_as_well() -> None:
    """A study that lets few in does not keep a server from having more of them."""
    asked = study({"max_num_seqs": 500}, engine_options={"max_num_seqs": 4})
    assert current(asked).metrics == scored(study(), "R16").metrics


def test_a_layout_is_left_for_itself_started_as_the_study_says() -> None:
    """The same plan with room for more sequences is another launch, which restarts every replica."""
    found = compare(study(OWN["seats"]), candidate="R16", scenarios=False)
    assert not found.same_plan
    assert found.verdict.verdict == "switch"
    assert found.switch is not None
    assert found.switch.gpus_restarted == 16
    assert found.p_better > 0.99


def test_a_comparison_says_how_the_current_plan_is_started() -> None:
    """In the document, in the assumptions, and as settings of the command that repeats it."""
    document = comparison_document(compare(study(OWN["all"]), scenarios=False))
    assert document["current"]["engine_options"] == OWN["all"]
    assert len(document["current"]["started_with"]) == 3
    assert "engine_options" not in document["candidate"]
    assert any("max_num_seqs 3" in text for text in document["assumptions"])
    assert "servers without CUDA graphs" in document["never_measured"]
    assert "baseline.engine_options.max_num_seqs=3" in document["command"]
    assert "--current" not in document["command"]


def test_a_simulation_says_the_sequences_that_it_was_run_with() -> None:
    """Those of the plan's own options, and how it is started."""
    asked = study(OWN["seats"])
    plan, traffic = current(asked), study_traffic(asked, count=300)
    found = simulate_plan(asked, plan, traffic, with_range=False)
    document = simulation_document(asked, plan, traffic, found)
    assert document["knobs"]["max_num_seqs"] == 4
    assert any("max_num_seqs 4" in text for text in document["assumptions"])


def test_sequences_of_two_pools_are_the_decode_pool_s() -> None:
    """Of a disaggregated plan they stand elsewhere, which is said; graphs and memory are taken."""
    pooled = "P:R1/TP8 + D:R1/TP8"
    asked = study()
    wrong = replace(asked, baseline=Baseline(plan=pooled, engine_options=OwnOptions(max_num_seqs=4)))
    with pytest.raises(InputError, match=r"baseline\.engine_options\.max_num_seqs.*decode_max_num_seqs"):
        score_baseline(wrong)
    eager = replace(asked, baseline=Baseline(plan=pooled, engine_options=OwnOptions(cuda_graphs=False)))
    usual = replace(asked, baseline=Baseline(plan=pooled))
    assert current(eager).metrics["tpot_s"] > 1.2 * current(usual).metrics["tpot_s"]
    assert rescored(eager, current(eager)).metrics == pytest.approx(current(eager).metrics, rel=1e-6)
