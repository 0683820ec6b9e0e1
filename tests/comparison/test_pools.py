"""Disaggregated plans compared: the launch looked at again, sums that close, the switch by hand, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.comparison import compare
from autotune.comparison.best import at_capacity, best_plan
from autotune.comparison.replicas_in_transition import Fleets, fleet_of, served_per_s
from autotune.comparison.robustness import load_order
from autotune.comparison.switching import longest_request_s, switch_cost
from autotune.disaggregated.pool_rows import pool_load
from autotune.disaggregated.rescore import both_pools, pool_weight_bytes, pools_at, rescored
from autotune.report.comparison import comparison_document
from autotune.report.comparison_text import comparison_report
from autotune.report.html.comparison import comparison_page
from autotune.report.markdown import markdown_report
from autotune.scoring.gpu_time import gpu_s_per_request
from autotune.space.pool_plan import PoolPlan
from autotune.study import Baseline, Study
from autotune.tuning import PlanResult, tune
from autotune.tuning.answer_study import score_named
from costmodel.errors import InputError
from costmodel.estimate.normal import p_below
from costmodel.serving.requests import RequestKind
from costmodel.simulation.requests import Requests
from tests.comparison.helpers import scored
from tests.tuning.brute import question

PLAN = "P4:R2/TP2+D12:R3/TP4"


def pooled(**tables: Any) -> Study:
    """Llama-3.1-70B on two nodes of H100, pools opened."""
    return question(
        tables.pop("model", "llama-3.1-70b"),
        cluster={"gpus": 16, "gpu": "h100_sxm", "gpus_per_node": 8, **tables.pop("cluster", {})},
        workload={"isl": 3000, "osl": 300, **tables.pop("workload", {})},
        constraints=tables.pop("constraints", {"ttft_ms": 4000, "tpot_ms": 40}),
        search={"max_num_batched_tokens": [4096, 8192], "disaggregated": "auto", **tables.pop("search", {})},
        disaggregation={"pool_gpus_multiple_of": 4, **tables.pop("disaggregation", {})},
        baseline={"plan": "TP8"},
        switch={"startup_s": 100.0, "warmup_s": 10.0, "drain_s": 1.0, "storage_gb_per_s": 5.0},
        **tables,
    )


@pytest.mark.parametrize(
    "workload", [{}, {"concurrency": 60}, {"request_rate_per_s": 4.0}], ids=["open", "in flight", "rate"]
)
def test_a_launch_looked_at_again_is_itself(workload: dict[str, Any]) -> None:
    """Disaggregated plans from all over a ranking, scored again as they were launched, have the figures they had."""
    study = pooled(workload=workload, engine="trtllm")
    result = tune(study)
    plans = [p for p in (*result.ranked, *result.infeasible) if p.pools is not None]
    assert len(plans) > 20
    for plan in plans[:: len(plans) // 5]:
        again = rescored(study, plan)
        assert (again.plan, again.knobs) == (plan.plan, plan.knobs)
        assert again.metrics == pytest.approx(dict(plan.metrics), rel=1e-9)


def test_gpu_seconds_of_both_pools_sum_to_gpus_over_requests() -> None:
    """Operators take the GPUs of their own pool; what kernels run is what the pools' busiest stages say at least."""
    study = pooled()
    plan = scored(study, PLAN)
    assert plan.pools is not None
    parts = gpu_s_per_request(plan)
    assert sum(parts.values()) == pytest.approx(16.0 / plan.metrics["requests_per_s"])
    for role in ("prefill", "decode"):
        pool = getattr(plan.pools, role)
        kernels = sum(s for (phase, _), s in parts.items() if phase == role)
        busy = pool.gpu_util_frac * pool.gpus / plan.metrics["requests_per_s"]
        assert kernels == pytest.approx(busy, rel=0.25), role


def test_the_sweep_of_loads_agrees_with_plans_at_a_load() -> None:
    """At a number in flight the sweep says what the plan scored at it says, up to which of equal points is taken."""
    study = pooled()
    plan = scored(study, PLAN)
    loads = np.array([1.0, 8.0, 40.0, 4000.0])
    swept = pools_at(study, plan, loads)
    for i, load in enumerate(loads.tolist()):
        own = replace(study, workload=replace(study.workload, concurrency=int(load)))
        assert swept.requests_per_s[i] == pytest.approx(rescored(own, plan).metrics["requests_per_s"], rel=1e-9)
    assert np.all(np.diff(swept.requests_per_s) >= 0.0)
    _, _, reach = load_order(study, scored(study, "TP8"), plan)
    assert reach >= 4 * plan.knobs.concurrency


def decode_of(plan: PlanResult) -> PoolPlan:
    """The decode pool of a plan that has one."""
    assert plan.pools is not None
    return plan.pools.decode


def test_slots_follow_from_limits_not_from_what_comes() -> None:
    """A server for a quiet hour is started as one for a busy one: for what keeps the limits, and its peaks."""
    quiet, busy = (scored(pooled(workload={"request_rate_per_s": rate}), PLAN) for rate in (0.5, 4.0))
    assert decode_of(quiet).in_flight < 0.3 * decode_of(busy).in_flight
    assert quiet.launch == busy.launch
    slots = decode_of(busy).max_num_seqs
    tight = scored(pooled(constraints={"ttft_ms": 4000, "tpot_ms": 22}), PLAN)
    assert decode_of(tight).max_num_seqs < slots
    in_time = next(n for n in range(1, slots) if n + 3 * n**0.5 > decode_of(tight).max_num_seqs - 1)
    decode = both_pools(pooled(), busy)[1]
    for n, keeps in ((in_time, True), (in_time + 1, False)):
        # of so many that hold a slot some decode: the others' cache or first token is on its way
        fewer, more = 0.5 * n, 1.0 * n
        while more - fewer > 1e-6 * n:
            own = decode.at(np.array([1.5 * (fewer + more)])).columns
            holds = float(own.sequences_per_rank[0])
            fewer, more = (0.5 * (fewer + more), more) if holds < n else (fewer, 0.5 * (fewer + more))
        assert holds == pytest.approx(n, rel=1e-4)
        p_kept = float(p_below(0.022, own.latency_s, own.log_sd)[0])
        assert (p_kept >= pooled().search.min_p_meets) is keeps, n
    room = float(decode.at(np.ones(1)).columns.kv_capacity_sequences[0])
    assert slots * 1.05 <= room < (slots + 1) * 1.05
    assert scored(pooled(disaggregation={"decode_max_num_seqs": 5}), PLAN).launch.decode_max_num_seqs == 5


def test_no_more_run_than_the_slots_that_were_started() -> None:
    """With 4 slots a worker at most 12 requests decode, whatever comes, and a plan looked at again keeps its slots."""
    study = pooled()
    told = Baseline(plan=PLAN, decode_max_num_seqs=4)
    few = score_named(replace(study, baseline=told), None, path="", missing="").result
    many = scored(study, PLAN)
    assert few is not None
    assert decode_of(few).in_flight <= 12.0
    assert few.metrics["requests_per_s"] < 0.5 * many.metrics["requests_per_s"]
    loads = np.array([1.0, 6.0, 4000.0])
    swept = pools_at(study, few, loads)
    assert swept.requests_per_s[2] <= 12.0 / (299 * swept.tpot_s[2]) * (1 + 1e-6)
    assert swept.requests_per_s[:2] == pytest.approx(pools_at(study, many, loads).requests_per_s[:2], rel=0.02)
    offered = replace(study, workload=replace(study.workload, request_rate_per_s=4.0))
    again = rescored(offered, few)
    assert again.launch == few.launch
    assert not again.feasible
    assert [v.code for v in again.violations] == ["request_rate_per_s", "ttft_ms", "min_p_meets"]
    assert rescored(offered, many).feasible
    with pytest.raises(InputError, match=r"baseline.decode_max_num_seqs: must be left out .*'TP8'"):
        score_named(replace(study, baseline=replace(told, plan="TP8")), None, path="", missing="")


def test_other_slots_restart_the_decode_pool_alone() -> None:
    """The prefill workers of a plan whose slots change serve through it."""
    study = pooled()
    told = Baseline(plan=PLAN, decode_max_num_seqs=4)
    found = compare(replace(study, baseline=told), candidate=PLAN, scenarios=False)
    assert found.switch is not None
    assert (found.same_plan, found.switch.restart, found.switch.gpus_restarted) == (False, True, 12)


def test_capacity_is_the_slower_pools() -> None:
    """At the most that keeps the limits the plan serves no more than either pool can."""
    study = pooled()
    plan = scored(study, PLAN)
    most = at_capacity(study, plan)
    assert most is not None
    assert most.pools is not None
    able = min(most.pools.prefill.requests_per_s, most.pools.decode.requests_per_s)
    assert plan.metrics["requests_per_s"] <= most.metrics["requests_per_s"] * (1 + 1e-9)
    assert most.metrics["requests_per_s"] <= able * (1 + 1e-9)


def test_pools_start_in_turns() -> None:
    """Two prefill replicas of 2 GPUs and three decode replicas of 4, by share; what serves is the lesser pool."""
    study = pooled()
    plan = scored(study, PLAN)
    assert plan.pools is not None
    fleet = fleet_of(study, plan)
    assert [r.gpus for r in fleet] == [4, 2, 4, 2, 4]
    p, d = plan.pools.prefill.requests_per_s, plan.pools.decode.requests_per_s
    shares = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)]
    served = [served_per_s(fleet[:first]) for first in range(6)]
    assert served == pytest.approx([min(a / 2 * p, b / 3 * d) / min(p, d) for a, b in shares])
    held = pool_weight_bytes(study, plan)
    assert held[0] == pytest.approx(141.1e9 / 2, rel=0.02)
    assert held[1] == pytest.approx(141.1e9 / 4, rel=0.02)


def test_the_switch_to_pools_by_hand() -> None:
    """One of two TP8 replicas down: 8 GPUs take D, P of the first turn, and D waits for the other; then the rest."""
    study = pooled()
    before, after = scored(study, "TP8"), scored(study, PLAN)
    cost = switch_cost(study, before, after, capacities=(8.0, 12.0), load_requests_per_s=5.0)
    assert [(w.replicas_down, w.replicas_started) for w in cost.waves] == [(1, 2), (1, 3)]
    serving = served_per_s(fleet_of(study, after, 12.0)[:2])
    assert [w.capacity_requests_per_s for w in cost.waves] == pytest.approx([4.0, serving])
    held = pool_weight_bytes(study, after)
    assert cost.weight_bytes == pytest.approx(4 * held[0] + 12 * held[1])
    assert cost.gpus_restarted == 16
    assert cost.gpu_s == pytest.approx(8 * cost.waves[0].duration_s + 10 * cost.waves[1].duration_s)
    back = switch_cost(study, after, before, capacities=(12.0, 8.0), load_requests_per_s=5.0)
    assert sum(w.replicas_down for w in back.waves) == 5
    assert sum(w.replicas_started for w in back.waves) == 2


def test_a_change_of_the_ratio_leaves_the_other_workers_alone() -> None:
    """From 2 prefill workers and 3 decode workers to 4 and 2: one decode worker stops, two prefill workers start."""
    study = pooled()
    before, after = scored(study, PLAN), scored(study, "P8:R4/TP2+D8:R2/TP4")
    assert before.pools is not None
    cost = switch_cost(study, before, after, capacities=(8.0, 12.0), load_requests_per_s=5.0)
    assert [(w.replicas_down, w.replicas_started) for w in cost.waves] == [(1, 2)]
    assert cost.gpus_restarted == 4
    assert cost.weight_bytes == pytest.approx(4 * pool_weight_bytes(study, after)[0])
    p, d = before.pools.prefill.requests_per_s, before.pools.decode.requests_per_s
    assert cost.waves[0].capacity_requests_per_s == pytest.approx(8.0 * min(p, d * 2 / 3) / min(p, d))
    assert cost.gpu_s == pytest.approx(4 * cost.duration_s)
    # of what a decode worker has begun the prefill is done
    whole = longest_request_s(study, before)
    assert cost.drain_s == pytest.approx(min(whole - before.metrics["ttft_longest_s"], study.switch.drain_s or whole))
    shares = Fleets.of(fleet_of(study, before), fleet_of(study, after))
    assert [len(part) for part in (shares.kept, shares.old, shares.new)] == [4, 1, 2]
    other = replace(after, knobs=replace(after.knobs, kv_dtype="fp8"))
    assert not Fleets.of(fleet_of(study, before), fleet_of(study, other)).kept


def test_gpus_of_another_type_are_not_freed_by_the_current_plan() -> None:
    """A prefill pool on other GPUs starts at once; the decode pool waits for the cluster's own."""
    study = pooled(cluster={"also": [{"gpus": 4, "gpu": "h200_sxm"}]})
    before, after = scored(study, "TP8"), scored(study, "P4@h200_sxm:R1/TP4+D16:R2/TP8")
    cost = switch_cost(study, before, after, capacities=(8.0, 12.0), load_requests_per_s=5.0)
    assert sum(w.replicas_down for w in cost.waves) == 2
    assert sum(w.replicas_started for w in cost.waves) == 3
    assert cost.gpus_restarted == 20


def test_the_best_plan_may_be_disaggregated() -> None:
    """The candidate is the winner of the ranking, and every form of the comparison can be written."""
    study = pooled(workload={"isl": 8000, "osl": 300}, constraints={"ttft_ms": 6000, "tpot_ms": 16})
    winner = next(p for p in tune(study).ranked)
    assert winner.pools is not None, "the study is meant to be won by pools"
    found = compare(study)
    assert found.candidate is not None
    assert found.candidate.plan == winner.plan
    assert found.robustness is not None
    assert found.switch is not None
    document = comparison_document(found)
    assert document["candidate"]["pools"]["prefill"]["gpus"] + document["candidate"]["pools"]["decode"]["gpus"] == 16
    assert json.dumps(document, allow_nan=False)
    assert document["candidate"]["name"] in markdown_report(comparison_report(document))
    assert document["candidate"]["name"] in comparison_page(document)
    back = compare(study, current=winner.plan, candidate="TP8", scenarios=False)
    assert back.current.plan == winner.plan
    assert back.p_better == pytest.approx(1.0 - found.p_better, abs=0.05)


def test_a_pool_that_breaks_a_rule_is_named_as_it_was_given() -> None:
    """A side that the engine forbids leaves no plan: the candidate goes by its own words, with the pool's rule."""
    study = pooled(model="qwen3-235b")
    found = compare(study, candidate="P8:TP8/MTP2/EP4+D8:TP8/EP8")
    assert found.candidate is not None
    assert found.candidate.result is None
    assert found.candidate.plan == "P8:TP8/MTP2/EP4+D8:TP8/EP8"
    assert "moe_tp_or_ep: prefill pool" in found.candidate.rules_broken[0]
    assert found.verdict.rule == "candidate_cannot_run"


def recorded(study: Study) -> Study:
    """The study under recorded traffic of two kinds of requests."""
    points = (RequestKind(isl=2000, osl=200, weight=0.5), RequestKind(isl=4000, osl=400, weight=0.5))
    return replace(study, workload=replace(study.workload, points=points, request_rate_per_s=2.0))


def test_a_summary_of_traffic_takes_both_kinds() -> None:
    """Pools meet its mean prompt with its spread, and decode each as long as its output; no plan of theirs is refused.

    A sequence of 4,000 tokens that decodes 400 is there twice as long as one of 2,000 that decodes 200.
    """
    study = recorded(pooled())
    loads = [pool_load(study, np.full(1, 8192.0), role) for role in ("prefill", "decode")]
    assert [float(load.isl[0]) for load in loads] == pytest.approx([3000.0, 4000 * 2 / 3 + 2000 / 3])
    plan = scored(study, PLAN)
    same = replace(study, workload=replace(study.workload, points=()))
    assert plan.metrics["tpot_s"] == pytest.approx(scored(same, PLAN).metrics["tpot_s"], rel=0.02)
    # the spread makes prompts wait longer for each other
    assert plan.metrics["ttft_s"] > scored(same, PLAN).metrics["ttft_s"]
    found = compare(study, candidate=PLAN, scenarios=False)
    assert found.candidate is not None
    assert found.candidate.value_per_s > 0.0
    assert any(text.startswith("candidate: its pools are scored at the mean lengths") for text in found.assumptions)


def test_the_best_plan_for_a_summary_of_traffic_may_be_pools() -> None:
    """Where the study is about pools alone the best of them is found, and it keeps the limits on that traffic."""
    best = best_plan(recorded(pooled(search={"disaggregated": "only", "max_num_batched_tokens": [4096]})))
    assert isinstance(best, PlanResult)
    assert best.pools is not None
    assert best.feasible


def test_single_requests_are_served_by_both_kinds() -> None:
    """Requests of a log go through a disaggregated plan too, one by one, and it is said what its means are of."""
    study = recorded(pooled(model="llama-3.1-8b"))
    random = np.random.default_rng(3)
    log = Requests(
        arrival_s=np.cumsum(random.exponential(0.5, 200)),
        prompt=random.integers(1000, 5000, 200),
        cached=np.zeros(200, dtype=np.int64),
        output=random.integers(50, 400, 200),
    )
    found = compare(study, candidate=PLAN, requests=log, scenarios=False)
    current, candidate = found.simulated
    assert current.requests == candidate.requests == 200
    assert candidate.within_limits_frac.value > 0.9
    assert 0.0 < candidate.latencies_s["tpot"]["p50"] <= candidate.latencies_s["tpot"]["p99"]
    assert any(text.startswith("candidate: its pools are scored at the mean lengths") for text in found.assumptions)


def test_the_command_takes_what_tune_names(tmp_path: Path) -> None:
    """`compare --candidate` with the string of a ranking's disaggregated plan answers with exit code 0."""
    study = tmp_path / "study.toml"
    study.write_text(
        'engine = "vllm"\nmodel = "llama-3.1-70b"\n[cluster]\ngpus = 16\ngpu = "h100_sxm"\n[workload]\nisl = 3000\n'
        'osl = 300\n[search]\ndisaggregated = "auto"\n[disaggregation]\npool_gpus_multiple_of = 4\n[baseline]\n'
        'plan = "TP8"\n',
        encoding="utf-8",
    )
    ran = CliRunner().invoke(cli, ["tune", str(study), "--no-storage", "--json", "--top", "0"])
    plan = next(p["plan"] for p in json.loads(ran.stdout)["plans"] if "pools" in p)
    ran = CliRunner().invoke(cli, ["compare", str(study), "--candidate", plan, "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["candidate"]["plan"] == plan
