"""Evaluating a disaggregated plan: its pools, the transfer, how the rates match, what a GPU more brings."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
import pytest

from autotune.disaggregated.rescore import pools_at
from autotune.evaluation import Evaluation, evaluate, evaluate_plan, read_claims
from autotune.evaluation.evaluate_pools import PoolSections
from autotune.report.evaluation import evaluation_document
from autotune.report.evaluation_text import evaluation_report
from autotune.report.html.evaluation import evaluation_page
from autotune.report.markdown import markdown_report
from autotune.scoring.limits import LOAD_SERVED
from autotune.space.pool_plan import ALIKE_FRAC, slower_pool
from autotune.study import Study
from autotune.tuning import tune
from costmodel.errors import InputError
from tests.command import autotune
from tests.remembered import asked_once
from tests.studies import FOLDER
from tests.tuning.brute import question

PLAN = "P4:TP4+D4:TP4"


@pytest.fixture(scope="module", autouse=True)
def _answered_once() -> Iterator[None]:
    """The ranking that plans are evaluated beside is that of a few studies."""
    with asked_once((sys.modules[__name__], "tune"), (evaluate_plan, "tune")):
        yield


def _study(*, workload: Mapping[str, float] = MappingProxyType({}), **tables: object) -> Study:
    return question(
        "llama-3.1-70b",
        cluster={"gpus": 8, "gpu": "h100_sxm", "gpus_per_node": 8},
        workload={"isl": 2003, "osl": 251, **workload},
        constraints=tables.pop("constraints", {"ttft_ms": 4000, "tpot_ms": 40}),
        search={"max_num_batched_tokens": [8192], "disaggregated": "only"},
        **tables,
    )


def _found(study: Study, plan: str = PLAN) -> Evaluation:
    found = evaluate(study, plan)
    assert isinstance(found.sections, PoolSections)
    return found


def _pools(found: Evaluation) -> PoolSections:
    assert isinstance(found.sections, PoolSections)
    return found.sections


def test_a_plan_is_worth_the_same_everywhere() -> None:
    """Ranked, as baseline and evaluated, a disaggregated plan has the same figures to the last digits."""
    study = _study()
    best = tune(study).ranked[0]
    evaluated = _found(study, best.plan)
    assert _pools(evaluated).plan.metrics == pytest.approx(dict(best.metrics), rel=1e-12)
    assert _pools(evaluated).plan.pools == best.pools
    result = tune(_study(baseline={"plan": best.plan})).baseline
    assert result is not None
    assert result.result is not None
    assert result.result.metrics == pytest.approx(dict(best.metrics), rel=1e-12)


def test_rates_match_by_hand() -> None:
    """One more GPU helps the slower pool alone, by its rate per GPU at most; the faster one idles by the difference."""
    match = _pools(_found(_study())).rate_match
    p, d = match.prefill_requests_per_s, match.decode_requests_per_s
    able = {"prefill": p, "decode": d}
    gains = {
        "prefill": match.one_more_prefill_gpu_requests_per_s,
        "decode": match.one_more_decode_gpu_requests_per_s,
    }
    slower, faster = match.slower, "decode" if match.slower == "prefill" else "prefill"
    assert able[slower] <= able[faster]
    assert gains[faster] == 0.0
    assert gains[slower] == pytest.approx(min(able[slower] / 4.0, able[faster] - able[slower]))
    assert match.idle_frac == pytest.approx(1.0 - able[slower] / able[faster])
    assert match.balanced_prefill_gpus == pytest.approx(8.0 * d / (p + d))


def test_pools_on_two_types_trade_no_gpus() -> None:
    """A pool on eight H200 gets none of the eight H100: what is said is how many of the faster pool's are enough."""
    study = question(
        "llama-3.1-70b",
        cluster={"gpus": 8, "gpu": "h100_sxm", "also": [{"gpus": 8, "gpu": "h200_sxm"}]},
        workload={"isl": 4000, "osl": 500},
        constraints={"ttft_ms": 2000, "tpot_ms": 40},
        search={"disaggregated": "only"},
    )
    found = _found(study, "P8@h200_sxm:TP8+D8@h100_sxm:TP8")
    match = _pools(found).rate_match
    assert match.slower == "prefill"
    assert match.balanced_prefill_gpus is None
    assert match.enough_gpus == pytest.approx(8.0 * match.prefill_requests_per_s / match.decode_requests_per_s)
    text = markdown_report(evaluation_report(evaluation_document(found)))
    assert "GPUs that prefill" not in text
    assert f"{match.enough_gpus:.3g} of the 8 h100_sxm that decode would do as much as the 8 h200_sxm" in text


def test_a_given_rate_that_both_pools_carry_is_set_by_neither() -> None:
    """At half of what the slower pool can do, each pool is in use by what the rate is of its own, in words too."""
    free = _pools(_found(_study())).rate_match
    rate = 0.5 * min(free.prefill_requests_per_s, free.decode_requests_per_s)
    found = _found(_study(workload={"request_rate_per_s": rate}))
    match = _pools(found).rate_match
    faster = max(match.prefill_requests_per_s, match.decode_requests_per_s)
    assert free.given_requests_per_s is None
    assert match.given_requests_per_s == rate
    assert match.idle_frac == pytest.approx(1.0 - rate / faster)
    text = markdown_report(evaluation_report(evaluation_document(found)))
    assert "sets the rate" not in text
    for pool in (_pools(found).prefill, _pools(found).decode):
        assert f"{pool.used_frac:.0%} of what the {pool.role} pool can do" in text


LOADED = (
    ("llama-3.1-70b", "vllm", "P8:R4 TP2+D8:TP8", 16, {"isl": 4000, "osl": 500}),
    ("llama-3.1-70b", "sglang", "P12:R6 TP2+D4:TP4", 16, {"isl": 4000, "osl": 500}),
    ("llama-3.1-8b", "trtllm", "P6:R6 TP1+D2:R2 TP1", 8, {"isl": 4000, "osl": 200}),
    ("llama-3.1-8b", "sglang", "P1:TP1+D1:TP1", 2, {"isl": 500, "osl": 20}),
)
"""Plans whose prefill pool, or whose decode pool, is the slower one."""


@pytest.mark.parametrize("case", LOADED)
def test_no_load_has_a_pool_serve_more_than_it_can(case: tuple[str, str, str, int, dict[str, float]]) -> None:
    """In the closed loop: what sets the rate is used up to the last thousandth under enough load, and never beyond."""
    model, engine, plan, gpus, lengths = case
    most = []
    for in_flight in (32, 256, 2048, 8192):
        study = question(
            model,
            engine=engine,
            cluster={"gpus": gpus, "gpu": "h100_sxm", "gpus_per_node": 8},
            workload={**lengths, "concurrency": in_flight},
            constraints={"ttft_ms": 1e6, "tpot_ms": 1e4},
            search={"max_num_batched_tokens": [16384], "disaggregated": "only"},
        )
        found = _found(study, plan)
        served = _pools(found).plan.metrics["requests_per_s"]
        used = [served / pool.requests_per_s for pool in (_pools(found).prefill, _pools(found).decode)]
        assert used == pytest.approx([pool.used_frac for pool in (_pools(found).prefill, _pools(found).decode)])
        assert max(used) <= 1.0 + 1e-6
        most.append(max(used))
    assert max(most) > 0.995


def test_a_rate_that_the_closed_loop_serves_is_carried() -> None:
    """A given rate of 99 % of what the best load serves is served, and more than all of it is not."""
    study = _study(constraints={"ttft_ms": 60000, "tpot_ms": 400})
    served = pools_at(study, _pools(_found(study)).plan, np.array([1000.0, 4000.0])).requests_per_s.max()
    for share, verdict in ((0.99, True), (1.01, False)):
        found = _found(
            _study(constraints={"ttft_ms": 60000, "tpot_ms": 400}, workload={"request_rate_per_s": share * served})
        )
        check = next(c for c in found.checks if c.name == LOAD_SERVED)
        assert check.passed == verdict
        assert (_pools(found).rate_match.given_requests_per_s is not None) == verdict


def test_both_commands_name_the_same_pool() -> None:
    """Which pool sets the rate is said alike by `tune` and `evaluate`, at a rate and without."""
    for workload in ({}, {"request_rate_per_s": 2.0}, {"concurrency": 40}):
        study = _study(workload=workload)
        for plan in tune(study).ranked[:4]:
            assert plan.pools is not None
            match = _pools(_found(study, plan.plan)).rate_match
            assert match.slower == plan.pools.slower
            able = match.prefill_requests_per_s, match.decode_requests_per_s
            assert match.slower == slower_pool(*able)
            assert match.alike == (abs(able[0] - able[1]) <= ALIKE_FRAC * max(able))


def test_sections_agree_with_the_plan() -> None:
    """Parts of the first token sum to TTFT, slots to what the pool runs at once, GPU time to the pools' GPUs."""
    found = _found(_study())
    metrics = _pools(found).plan.metrics
    document = evaluation_document(found)
    assert sum(document["ttft_parts_s"].values()) == pytest.approx(metrics["ttft_s"], rel=1e-9)
    transfer = _pools(found).transfer
    assert (transfer.bytes_s + transfer.handover_s) / metrics["ttft_s"] == pytest.approx(transfer.ttft_frac)
    assert _pools(found).decode.slots >= _pools(found).decode.in_flight * (1.0 - 1e-9)
    assert _pools(found).prefill.gpus + _pools(found).decode.gpus == 8
    for section in (_pools(found).prefill, _pools(found).decode):
        assert 0.0 < section.used_frac <= 1.0
        assert sum(section.gpu_s.values()) * metrics["requests_per_s"] == pytest.approx(section.gpus, rel=1e-9)


def test_every_form_shows_it() -> None:
    """Text and page name both pools, the plan and the verdict."""
    document = evaluation_document(_found(_study()))
    text, page = markdown_report(evaluation_report(document)), evaluation_page(document)
    for shown in (text, page):
        assert document["name"] in shown
        assert document["verdict"] in shown
        assert "prefill" in shown


def test_claims_are_about_one_layout() -> None:
    """A file of claims is refused beside a disaggregated plan."""
    claims = FOLDER / "reference-128.claims.toml"
    with pytest.raises(InputError, match="must not be given with a disaggregated plan"):
        evaluate(_study(), PLAN, read_claims(claims))


def test_the_command() -> None:
    """The JSON of the command has both pools' sections, the transfer and the rate match."""
    found = autotune(
        "evaluate", str(FOLDER / "llama-70b-16xh100.toml"), "--set", "cluster.gpus=8", "--set", "baseline.plan=tp8",
        "--set", "workload.request_rate_per_s=0.5", "--plan", PLAN, "--json",
    )  # fmt: skip
    assert found.returncode in (0, 3), found.stderr
    document = json.loads(found.stdout)
    assert set(document["pools"]) == {"prefill", "decode"}
    assert document["rate_match"]["slower"] in ("prefill", "decode")
    assert document["transfer"]["handover_s"] > 0.0
