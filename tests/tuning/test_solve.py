"""Solved knobs: the most or the fewest in flight, within what the study allows; budgets of sampled searches."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from autotune.scoring.best_knobs import score
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.scoring.plan_order import rank
from autotune.scoring.plan_result import PlanResult
from autotune.scoring.solve_concurrency import most_within_limits, solve_concurrency
from autotune.scoring.trial_record import Recorder, plan_of, study_header
from autotune.space import Candidate, enumerate_space
from autotune.storage import open_store
from autotune.tuning import tune
from tests.tuning.brute import all_layouts, evaluate, keeps, question


def variants(engine: str = "vllm", gpus: int = 8, model: str = "mixtral-8x7b") -> list[Variant]:
    """Every plan of a small cluster."""
    found = all_layouts(question(model, gpus, engine=engine))
    return [Variant(candidate=Candidate(engine=e, layout=p), weight_dtype=None, kv_dtype=None) for e, p in found]


@pytest.mark.parametrize("min_p_meets", [0.0, 0.6])
def test_one_more_per_replica_breaks_a_limit(min_p_meets: float) -> None:
    """The most within the limits keeps what more load can break; one more does not, or has no KV room."""
    study = question(
        engine="any", constraints={"tpot_ms": 25, "ttft_ms": 900}, search={"min_p_meets": min_p_meets, "trials": 9}
    )
    rows = KnobGrid.of(study, variants("any"), [2048])
    solved = most_within_limits(rows)
    assert (solved % rows.batch.layout.replicas == 0).all()
    tried = 0
    for variant, most in zip(rows.variants, solved, strict=True):
        c = variant.candidate
        e = evaluate(study, c.engine, c.layout, most + c.layout.replicas * np.arange(2.0), [2048])
        good = keeps(study, e) & (e.kv_wait_s <= 0.0)
        assert not good[1], c
        tried += int(good[0])
        if not good[0]:
            assert most == c.layout.replicas
    assert tried > 5


@pytest.mark.parametrize(("least", "most"), [(1, 3), (10, 11), (7, 7), (64, 100)])
@pytest.mark.parametrize("objective", [{"minimize": "tpot_s"}, {"maximize": "requests_per_s"}])
def test_concurrency_stays_in_the_range_asked_for(objective: dict[str, str], least: int, most: int) -> None:
    """Also where the range holds no multiple of a plan's replicas."""
    study = question(
        objective=objective,
        search={"concurrency": {"min": least, "max": most}, "max_num_batched_tokens": [1024], "min_p_meets": 0.0},
    )
    result = tune(study)
    knobs = [p.knobs.concurrency for p in (*result.ranked, *result.infeasible)]
    assert min(knobs) >= least
    assert max(knobs) <= most


def test_open_arrivals_take_the_fewest_in_flight_that_keep_up() -> None:
    """The rate is reached, and by no fewer per replica; as many are in flight as come while one is served."""
    rate = 1.9
    study = question(gpus=4, engine="any", workload={"isl": 1009, "osl": 211, "request_rate_per_s": rate})
    result = tune(study)
    assert result.ranked
    for plan in result.ranked:
        assert plan.metrics["requests_per_s"] >= rate * (1 - 2e-6)
        assert abs(plan.knobs.concurrency - max(rate * plan.metrics["e2e_s"], 1.0)) <= 0.5 + 1e-5
        budget = plan.knobs.max_num_batched_tokens
        (solved,) = solve_concurrency(KnobGrid.of(study, [Variant.of(plan)], [budget]))
        fewer = float(solved - plan.layout.replicas)
        if fewer >= plan.layout.replicas:
            e = evaluate(study, plan.engine, plan.layout, np.array([fewer, solved]), [budget])
            assert e.requests_per_s[0] < rate <= e.requests_per_s[1] * (1 + 1e-9), plan.plan
    for plan in result.infeasible:
        assert "kv_capacity" in plan.margins
        assert plan.violations


def test_a_rate_that_nothing_serves_is_a_constraint() -> None:
    """Plans that cannot keep up are infeasible by the rate, not left out."""
    study = question(workload={"isl": 1009, "osl": 211, "request_rate_per_s": 9973})
    result = tune(study)
    assert not result.ranked
    assert {v.code for p in result.infeasible for v in p.violations} >= {"request_rate_per_s"}


def test_ranking_puts_nothing_infeasible_first() -> None:
    """Feasible plans by the objective, whatever order they come in; the others by how far they are off."""
    study = question(engine="any", constraints={"tpot_ms": 15, "ttft_ms": 500})
    results = score(study, enumerate_space(study.arch, gpus=8, engine="any").candidates)
    ranked, others = rank(study, results)
    assert ranked
    assert others
    backwards = rank(study, results[::-1])
    assert (ranked, others) == backwards
    assert all(p.feasible for p in ranked)
    assert not any(p.feasible for p in others)
    distances = [max(v.excess / abs(v.limit) for v in p.violations if v.code != "min_p_meets") for p in others]
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(distances))


def test_plans_survive_the_storage() -> None:
    """A plan read back from its trial is the plan, dtypes and split included."""
    study = question(
        engine="any",
        constraints={"tpot_ms": 15},
        search={"kv_dtype": ["fp8", "bf16"], "weight_dtype": ["bf16", "fp8"], "max_num_batched_tokens": [512, 8192]},
    )
    results = score(study, enumerate_space(study.arch, gpus=8, engine="any").candidates)
    recorder = Recorder.of(study, ())
    for plan in results:
        assert plan_of(recorder.record(plan)) == plan
    assert {p.knobs.weight_dtype for p in results} <= {"bf16", "fp8"}
    assert {p.knobs.kv_dtype for p in results} <= {"bf16", "fp8"}


def test_dtypes_are_chosen_by_what_they_bring() -> None:
    """With more choices no plan gets worse, and without limits a smaller cache holds more requests."""
    open_search = {"kv_dtype": ["bf16", "fp8"], "max_num_batched_tokens": [1024, 4096]}
    fixed_search = {"kv_dtype": ["bf16"], "max_num_batched_tokens": [1024]}
    workload = {"isl": 5003, "osl": 1009}
    free = tune(question(search=open_search, workload=workload))
    fixed = tune(question(search=fixed_search, workload=workload))
    metric = free.study.objective.metric
    before = {p.plan: p.metrics[metric] for p in fixed.ranked}
    now = {p.plan: p.metrics[metric] for p in free.ranked}
    assert set(before) <= set(now)
    assert all(now[plan] >= value * (1 - 1e-9) for plan, value in before.items())


@pytest.mark.parametrize("sampler", ["auto", "random", "nsga2"])
def test_a_sample_keeps_its_budget(sampler: str) -> None:
    """As many plans as asked for, each another, the same ones with the same seed, others with another."""

    def run(seed: int, trials: int = 23) -> set[str]:
        result = tune(question(engine="any", search={"trials": trials, "seed": seed, "sampler": sampler}))
        assert result.complete == (trials >= len(result.space.candidates))
        return {p.plan for p in (*result.ranked, *result.infeasible)}

    first = run(1)
    assert len(first) == 23
    assert first == run(1)
    assert first != run(2)
    assert len(run(1, 10_000)) == len(enumerate_space(question().arch, gpus=8, engine="any").candidates)


@pytest.mark.parametrize("held", ["sglang", "vllm", "trtllm"])
def test_a_sample_goes_on_from_what_is_stored(tmp_path: Path, held: str) -> None:
    """What is stored counts towards the budget, also where it holds every plan of an engine."""
    study = question(engine="any", search={"trials": 60, "max_num_batched_tokens": [1024]})
    stored = [c for c in enumerate_space(study.arch, gpus=8, engine="any").candidates if c.engine == held]
    store = open_store(tmp_path / "journal.log", study_header(study))
    recorder = Recorder.of(study, stored)
    store.add([recorder.record(p) for p in score(study, stored)])
    result = tune(study, store)
    assert result.scored_now == 60 - len(stored)
    assert len(store.known_keys()) == 60
    assert not result.complete
    assert tune(study, store).scored_now == 0


def plain(plan: PlanResult) -> tuple[object, ...]:
    """What identifies an answer."""
    return plan.plan, plan.knobs, plan.feasible, tuple(sorted(plan.metrics.items()))


def test_interruption_anywhere_leaves_the_same_answer(tmp_path: Path) -> None:
    """A run that dies after any batch goes on to the answer of an unbroken one."""
    study = question(engine="any", constraints={"tpot_ms": 20})
    whole = tune(study)
    candidates = whole.space.candidates
    recorder = Recorder.of(study, candidates)
    for done in (0, 1, len(candidates) // 2, len(candidates) - 1, len(candidates)):
        store = open_store(tmp_path / f"{done}.log", study_header(study))
        store.add([recorder.record(p) for p in score(study, candidates[:done])])
        again = tune(study, store)
        assert again.scored_now == len(candidates) - done
        assert [plain(p) for p in again.ranked] == [plain(p) for p in whole.ranked]
        assert [plain(p) for p in again.infeasible] == [plain(p) for p in whole.infeasible]
