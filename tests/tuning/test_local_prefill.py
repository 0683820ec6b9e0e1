"""Conditional disaggregation: prompts with few tokens to compute are prefilled where they decode."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.comparison.replicas_in_transition import Fleets, fleet_of
from autotune.disaggregated.local_prefill import by_local_prefill, local_prefill, with_local_prefill
from autotune.disaggregated.plan_results import pair_results
from autotune.disaggregated.rescore import rescored_pools
from autotune.disaggregated.search import search_pools
from autotune.retuning.decide import as_baseline
from autotune.scoring.plan_result import PlanResult
from autotune.scoring.trial_record import study_header
from autotune.simulation.plan_models import pools_model
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.storage import open_store
from autotune.study import Study
from autotune.tuning import tune
from autotune.tuning.answer_study import score_plan
from costmodel.errors import InputError
from costmodel.serving.requests import RequestKind
from costmodel.simulation.requests import Requests
from tests.tuning.brute import question

PLAN = "P8:R2/TP4+D8:TP8"


def asked(*choices: int, engine: str = "vllm", **tables: Any) -> Study:
    """Llama-70B on 16 H100, prompts of 100 to 8,000 tokens, with choices of what a front sends straight to decode."""
    return question(
        "llama-3.1-70b",
        cluster={"gpus": 16, "gpu": "h100_sxm", "gpus_per_node": 8},
        workload={"isl": {"min": 100, "max": 8000}, "osl": 400, **tables.pop("workload", {"request_rate_per_s": 6.0})},
        constraints=tables.pop("constraints", {"ttft_ms": 3000, "tpot_ms": 40}),
        search={"disaggregated": "only", "max_num_batched_tokens": [8192], **tables.pop("search", {})},
        disaggregation={"pool_gpus_multiple_of": 4, "max_local_prefill_tokens": list(choices)},
        engine=engine,
        **tables,
    )


def scored(study: Study, plan: str = PLAN) -> PlanResult:
    """A plan of the study, which its engine takes."""
    found = score_plan(study, plan)
    assert found.result is not None, found.resolution.violations
    return found.result


def test_what_is_left_to_the_prefill_pool_by_hand() -> None:
    """Of prompts of 100, 300 and 2,000 tokens, half of each cached, a front that sends on up to 160 keeps the last."""
    study = asked(0)
    kinds = tuple(RequestKind(isl=float(n), osl=400.0, weight=w) for n, w in ((100, 0.2), (300, 0.3), (2000, 0.5)))
    work = replace(study.workload, points=kinds, prefix_cache_hit_frac=0.5)
    found = local_prefill(work, 160, "vllm")
    assert found is not None
    assert (found.frac, found.new, found.cached) == pytest.approx((0.5, 110.0, 110.0))
    assert (found.others_isl, found.others_hit_frac, found.others_cv2) == pytest.approx((2000.0, 0.5, 0.0))
    assert local_prefill(work, 49, "vllm") is None
    assert local_prefill(work, 0, "vllm") is None


def test_a_log_says_what_is_cached_of_each_prompt() -> None:
    """Long prompts of which all but a few tokens are cached are prefilled where they decode, short ones are not."""
    prompt, cached = np.array([4000, 500]), np.array([3900, 0])
    log = Requests(arrival_s=np.arange(2.0), prompt=prompt, cached=cached, output=np.array([10, 10]))
    found = local_prefill(replace(asked(0).workload, recorded=log), 200, "vllm")
    assert found is not None
    assert (found.frac, found.new, found.cached, found.others_isl) == pytest.approx((0.5, 100.0, 3900.0, 500.0))


def test_a_log_is_split_by_its_requests_under_changed_traffic_too() -> None:
    """Of a log without hits, one of three prompts is short enough; twice as long none is, and with hits two are."""
    prompt = np.array([400, 900, 5000])
    log = Requests(arrival_s=np.arange(3.0), prompt=prompt, cached=np.zeros(3, dtype=np.int64), output=np.full(3, 10))
    kinds = (RequestKind(isl=2100.0, osl=10.0, weight=1.0),)
    work = replace(asked(0).workload, points=kinds, recorded=log)
    found = local_prefill(work, 500, "vllm")
    assert found is not None
    assert (found.frac, found.new, found.others_isl) == pytest.approx((1.0 / 3.0, 400.0, 2950.0))
    assert local_prefill(work.longer(prompts=2.0), 500, "vllm") is None
    hits = local_prefill(work.with_hits(0.5), 500, "vllm")
    assert hits is not None
    assert hits.frac == pytest.approx(2.0 / 3.0)
    assert not hits.cold
    assert hits.longest_new == 0.0


def test_blocks_decide_which_prompts_are_short() -> None:
    """Of 1,000 tokens of which 300 are known 18 whole blocks are found, so that 712 are computed, as requests drawn."""
    kinds = (RequestKind(isl=1000.0, osl=400.0, weight=1.0),)
    work = replace(asked(0).workload, points=kinds, prefix_cache_hit_frac=0.3)
    assert local_prefill(work, 711, "vllm") is None
    found = local_prefill(work, 712, "vllm")
    assert found is not None
    assert (found.new, found.cached) == pytest.approx((700.0, 300.0))


def test_fronts_that_need_a_hit_keep_cold_prompts_from_the_decode_pool() -> None:
    """Of two short prompts one is known in part: TensorRT-LLM's front sends on that one alone, vLLM's both."""
    prompt, cached = np.array([400, 300, 5000]), np.array([160, 0, 0])
    log = Requests(arrival_s=np.arange(3.0), prompt=prompt, cached=cached, output=np.full(3, 10))
    work = replace(asked(0).workload, recorded=log)
    some, both = (local_prefill(work, 500, engine) for engine in ("trtllm", "vllm"))
    assert some is not None
    assert both is not None
    assert (some.frac, some.new, some.cold) == pytest.approx((1.0 / 3.0, 240.0, False))
    assert (both.frac, both.new, both.cold) == pytest.approx((2.0 / 3.0, 270.0, True))
    study = asked(500, engine="any", workload={"request_rate_per_s": 6.0})
    narrowed = by_local_prefill(replace(study, workload=work))
    assert [own.engine for own in narrowed] == ["vllm", "trtllm"]
    for engine, local in (("trtllm", [True, False, False]), ("vllm", [True, True, False])):
        plan = scored(asked(500, engine="any", workload={"request_rate_per_s": 2.0}), f"{engine}:{PLAN}")
        model, _ = pools_model(asked(500, engine="any"), plan)
        assert model.is_local(prompt, cached).tolist() == local


def test_a_bound_above_all_prompts_asks_for_no_more_room() -> None:
    """The decode pool's budget holds the longest prompt beside its sequences, however much more would be sent."""
    most, more = (scored(asked(tokens)).pools for tokens in (8000, 2_000_000))
    assert most is not None
    assert more is not None
    assert more.decode.max_num_batched_tokens == most.decode.max_num_batched_tokens


def test_settings_that_send_alike_are_one() -> None:
    """No prompt has 99 tokens or fewer, so that a front told so does what one does that sends none."""
    assert len(by_local_prefill(asked(0, 50, 99, 1000))) == 2


@pytest.mark.parametrize("osl", [20, 400])
def test_all_prompts_may_be_prefilled_where_they_decode(osl: int) -> None:
    """With short outputs too, TPOT and TTFT are those of requests served one by one; the longest prompt's TTFT is more.

    Sequences whose last tokens are on their way bring no prompts: of outputs of 20 tokens they are most.
    """
    lengths = {"isl": {"min": 100, "max": 8000}, "osl": osl, "request_rate_per_s": 2.0}
    study = asked(8000, workload=lengths, constraints={"ttft_ms": 1e6, "tpot_ms": 1e5})
    plan = scored(study)
    found = simulate_plan(study, plan, study_traffic(study, count=4000), with_range=False).forecast
    assert found.latency("tpot", "mean").value == pytest.approx(plan.metrics["tpot_s"], rel=0.12)
    assert found.latency("ttft", "mean").value == pytest.approx(plan.metrics["ttft_s"], rel=0.12)
    assert plan.metrics["ttft_s"] < plan.metrics["ttft_longest_s"] < found.latency("ttft", "p99").value


POOLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "attention-DP": ("deepseek-v3", "vllm:P16:TP16/EP16+D16:DP16/EP16", {"workload": {"request_rate_per_s": 3.0}}),
    "pipeline": (
        "llama-3.1-70b",
        "trtllm:P8:TP8+D8:PP4/TP2",
        {"workload": {"request_rate_per_s": 2.0, "prefix_cache_hit_frac": 0.3}},
    ),
}


@pytest.mark.parametrize("tokens", [3000, 8000])
@pytest.mark.parametrize("kind", POOLS)
def test_ranks_and_stages_that_decode_prefill_as_simulated(kind: str, tokens: int) -> None:
    """The longest micro-batch holds up a pipeline's turn, and steps with prompts bring others: TPOT within 20 %."""
    model, plan, tables = POOLS[kind]
    gpus = 32 if model == "deepseek-v3" else 16
    study = question(
        model,
        cluster={"gpus": gpus, "gpu": "h200_sxm", "gpus_per_node": 8},
        workload={"isl": {"min": 100, "max": 8000}, "osl": 400, **tables["workload"]},
        constraints={"ttft_ms": 60000, "tpot_ms": 400},
        search={"disaggregated": "only", "max_num_batched_tokens": [8192]},
        disaggregation={"max_local_prefill_tokens": [tokens]},
        engine="any",
    )
    result = scored(study, plan)
    found = simulate_plan(study, result, study_traffic(study, count=2500), with_range=False).forecast
    assert found.latency("tpot", "mean").value == pytest.approx(result.metrics["tpot_s"], rel=0.2)
    assert found.latency("ttft", "mean").value == pytest.approx(result.metrics["ttft_s"], rel=0.1)


@pytest.mark.parametrize("rate", [2.0, 3.0])
@pytest.mark.parametrize("tokens", [0, 1000, 4000])
def test_closed_form_and_simulation_agree(tokens: int, rate: float) -> None:
    """Mean TTFT within 12 % and TPOT within 6 %, as with no such prompts."""
    study = asked(tokens, workload={"request_rate_per_s": rate})
    plan = scored(study)
    found = simulate_plan(study, plan, study_traffic(study, count=4000), with_range=False).forecast
    assert found.latency("ttft", "mean").value == pytest.approx(plan.metrics["ttft_s"], rel=0.12)
    assert found.latency("tpot", "mean").value == pytest.approx(plan.metrics["tpot_s"], rel=0.06)


def test_a_closed_loop_is_simulated_too() -> None:
    """Requests in flight: half of the prompts skip the prefill pool, and both ways of telling find it quicker."""
    ttft = []
    for tokens in (0, 4000):
        study = asked(tokens, workload={"concurrency": 40}, constraints={"tpot_ms": 60})
        plan = scored(study)
        found = simulate_plan(study, plan, study_traffic(study, count=1500), with_range=False).forecast
        assert found.latency("tpot", "mean").value == pytest.approx(plan.metrics["tpot_s"], rel=0.08)
        ttft.append((plan.metrics["ttft_s"], found.latency("ttft", "mean").value))
    assert ttft[1][0] < ttft[0][0]
    assert ttft[1][1] < ttft[0][1]


def test_what_it_brings_and_what_it_costs() -> None:
    """A busy prefill pool is relieved, so that the first token comes sooner; tokens come later, as prompts ride on."""
    none, half = (scored(asked(tokens)) for tokens in (0, 4000))
    assert none.pools is not None
    assert half.pools is not None
    assert half.pools.local_frac == pytest.approx(0.5, abs=0.02)
    assert half.pools.prefill.gpu_util_frac < 0.8 * none.pools.prefill.gpu_util_frac
    assert half.metrics["ttft_s"] < 0.8 * none.metrics["ttft_s"]
    assert half.metrics["tpot_s"] > 1.1 * none.metrics["tpot_s"]
    assert half.metrics["ttft_longest_s"] > half.metrics["ttft_s"]
    # a decode server's step has room for its sequences and for such a prompt
    assert half.pools.decode.max_num_batched_tokens >= 4000 + half.pools.decode.max_num_seqs


def test_few_such_prompts_change_little() -> None:
    """As the share of the prompts that are prefilled where they decode goes to nothing, so does what it changes."""
    none, few = (scored(asked(tokens)).metrics for tokens in (0, 103))
    for name in ("ttft_s", "tpot_s", "requests_per_s"):
        assert few[name] == pytest.approx(none[name], rel=0.01)


CASES: dict[str, dict[str, Any]] = {
    "limits": {"workload": {}},
    "tight": {"workload": {}, "constraints": {"ttft_ms": 900, "tpot_ms": 22}},
    "infeasible": {"workload": {}, "constraints": {"ttft_ms": 20, "tpot_ms": 2}},
    "fastest first token": {"workload": {}, "objective": {"minimize": "ttft_s"}},
    "rate": {},
    "in flight": {"workload": {"concurrency": 100}},
}


@pytest.mark.parametrize(("name", "engine"), list(zip(CASES, cycle(("vllm", "trtllm")))))
def test_pruning_loses_nothing(name: str, engine: str) -> None:
    """The best plans are those found by joining every point of every layout with every other, up to ties."""
    tables = json.loads(json.dumps(CASES[name]))
    if engine == "trtllm":  # its fronts need something cached
        tables["workload"] = {**tables.get("workload", {"request_rate_per_s": 6.0}), "prefix_cache_hit_frac": 0.3}
    study = with_local_prefill(asked(2500, engine=engine, **tables), 2500, engine)
    pruned, brute = search_pools(study, keep=12), search_pools(study, keep=12, prune=False)
    assert brute.pairs
    assert [p.key for p in pruned.pairs] == pytest.approx([p.key for p in brute.pairs], rel=1e-12)
    found, truth = ({p.plan for p in pair_results(study, s.pairs, home="h100_sxm")} for s in (pruned, brute))
    tied = {p.key for p in brute.pairs if sum(q.key == p.key for q in brute.pairs) > 1} | {brute.pairs[-1].key}
    assert len(found ^ truth) <= 2 * sum(p.key in tied for p in brute.pairs)


def test_the_search_takes_the_best_setting_of_each_plan() -> None:
    """With several choices each plan is as good as with the best of them alone, and says which it is."""
    objective = {"minimize": "ttft_s"}
    both = {p.plan: p for p in tune(asked(0, 1000, 4000, objective=objective)).ranked}
    alone = {tokens: {p.plan: p for p in tune(asked(tokens, objective=objective)).ranked} for tokens in (0, 1000, 4000)}
    chosen = set()
    for name, plan in both.items():
        assert plan.pools is not None
        own = {tokens: plans[name].metrics["ttft_s"] for tokens, plans in alone.items() if name in plans}
        assert plan.metrics["ttft_s"] == pytest.approx(min(own.values()), rel=1e-9)
        assert own[plan.pools.max_local_prefill_tokens] == pytest.approx(min(own.values()), rel=1e-9)
        chosen.add(plan.pools.max_local_prefill_tokens)
    assert len(chosen) > 1


def test_an_engine_that_cannot_is_left_out_by_name() -> None:
    """SGLang's decode pool prefills nothing, TensorRT-LLM's no prompt without a part that is cached there."""
    for engine in ("sglang", "trtllm"):
        with pytest.raises(InputError, match=r"max_local_prefill_tokens: must have 0 among its choices"):
            asked(512, engine=engine)
    refused = score_plan(asked(512, engine="any"), f"sglang:{PLAN}")
    assert refused.result is None
    assert [v.rule for v in refused.resolution.violations] == ["local_prefill"]
    frac = {p.engine: p.pools.local_frac for p in tune(asked(512, engine="any")).ranked if p.pools is not None}
    assert frac["vllm"] > 0.05
    assert set(frac) <= {"vllm", "trtllm"}
    assert frac.get("trtllm", 0.0) == 0.0
    cached = asked(512, engine="any", workload={"request_rate_per_s": 6.0, "prefix_cache_hit_frac": 0.3})
    assert score_plan(cached, f"sglang:{PLAN}").result is None
    assert score_plan(cached, f"trtllm:{PLAN}").result is not None
    plans = tune(asked(0, 2500, engine="any", workload={})).ranked
    settings = {(p.engine, p.pools.max_local_prefill_tokens) for p in plans if p.pools is not None}
    assert {tokens for engine, tokens in settings if engine == "sglang"} == {0}
    assert 2500 in {tokens for engine, tokens in settings if engine != "sglang"}


def test_a_plan_without_pools_takes_no_such_setting() -> None:
    """One clear line names every part of the plan in production that only pools have."""
    study = asked(0, baseline={"plan": "TP8", "max_local_prefill_tokens": 5, "decode_max_num_seqs": 3})
    with pytest.raises(InputError, match=r"baseline.max_local_prefill_tokens: must be left out") as error:
        tune(study)
    assert len(error.value.problems) == 2


def test_a_launch_keeps_its_setting_under_other_traffic() -> None:
    """What runs sends the prompts to the decode pool that are short then: of longer ones fewer."""
    study = asked(0, 2000)
    plan = scored(replace(study, axes=replace(study.axes, max_local_prefill_tokens=(2000,))))
    assert plan.launch.max_local_prefill_tokens == 2000
    assert as_baseline(plan.launch).max_local_prefill_tokens == 2000
    longer = replace(study, workload=study.workload.longer(prompts=2.0))
    again = rescored_pools(longer, plan)
    assert again.launch == plan.launch
    assert again.pools is not None
    assert plan.pools is not None
    assert again.pools.local_frac == pytest.approx(0.5 * plan.pools.local_frac, rel=0.1)


def test_another_setting_restarts_the_decode_workers_alone() -> None:
    """Their token budget has room for such prompts; workers of the prefill pool go on."""
    study = asked(0, 2000)
    none, some = (scored(replace(study, axes=replace(study.axes, max_local_prefill_tokens=(t,)))) for t in (0, 2000))
    assert none.launch != some.launch
    assert as_baseline(none.launch).max_local_prefill_tokens == 0
    fleets = Fleets.of(fleet_of(study, none), fleet_of(study, some))
    assert {replica.role for replica in fleets.kept} == {"prefill"}
    assert {replica.role for replica in fleets.new} == {"decode"}


def test_a_stored_plan_comes_back_with_its_setting(tmp_path: Path) -> None:
    """Trials have it as a parameter where a study leaves it open, and plans are read back as they were."""
    study = asked(0, 2000, workload={})
    first = tune(study, open_store(str(tmp_path / "trials.db"), study_header(study)))
    store = open_store(str(tmp_path / "trials.db"), study_header(study))
    again = tune(study, store)
    params = {record.params["max_local_prefill_tokens"] for record in store.records()}
    assert [p.pools for p in again.ranked] == [p.pools for p in first.ranked]
    assert again.scored_now == 0
    assert params <= {0, 2000}
    assert 2000 in params
