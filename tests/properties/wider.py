"""The statements for disaggregated plans, and those of limits on percentiles: what takes a search or a simulation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from autotune.disaggregated.local_prefill import by_local_prefill
from autotune.scoring.plan_result import PERCENTILES, PlanResult
from autotune.simulation.percentile_limits import percentile_limits
from autotune.study import Study
from autotune.study.field_types import IntRange
from autotune.tuning import tune
from autotune.tuning.knob_choices import search_traffic
from autotune.tuning.simulated_limits import with_percentiles
from tests.properties.given import Given
from tests.properties.pool_statements import POOL_STATEMENTS
from tests.properties.statements import STATEMENTS

SAME = ("shares", "tokens", "flops", "bytes_held", "bytes_read", "intervals", "margins", "ranking", "pairs", "alone")
QUICK = (*SAME, *POOL_STATEMENTS)
"""Statements about disaggregated plans that score nothing again, or little."""
EVERY_POOLED = ("relaxed", "better_hardware", *QUICK)
"""Those that say something of disaggregated plans; the others are about candidates of one kind of replica."""
PLANS = 3
PERCENTS = ("p50", "p90", "p95", "p99")
ROUNDING_MS = 1e-9
LENGTHS_APART = 20
"""Tokens by which prompts differ at least, for a front to tell them apart."""


def pooled(study: Study, names: Sequence[str], plans: int = PLANS) -> Iterator[tuple[str, str]]:
    """Of some statements those that the first disaggregated plans of a study violate, and where."""
    if study.cluster.gpus < 2:
        return
    found = tune(replace(study, baseline=None, axes=replace(study.axes, disaggregated="only")))
    first = [p for p in (*found.ranked, *found.infeasible) if p.pools is not None][:plans]
    given = Given(study=found.study, candidates=(), plans=first)
    for name in names:
        yield from ((f"pools, {name}", text) for text in (STATEMENTS | POOL_STATEMENTS)[name](given))


def with_local_prompts(rng: random.Random, study: Study) -> Study | None:
    """The study with prompts of many lengths, some of which a front sends to the decode pool; None: no engine can."""
    longest = study.workload.isl.max
    least = max(longest // 20, 1)
    if longest - least < LENGTHS_APART:
        return None
    work = replace(study.workload, isl=IntRange(min=least, max=longest), points=())
    length = least + (longest - least) * rng.uniform(0.1, 0.9)
    tokens = max(int(length * (1.0 - work.prefix_cache_hit_frac)), 1)
    asked = replace(study, workload=work, axes=replace(study.axes, max_local_prefill_tokens=(tokens,)))
    return next((own for own in by_local_prefill(asked) if own.axes.local_prefill is not None), None)


def simulated(rng: random.Random, study: Study, plans: list[PlanResult]) -> Iterator[tuple[str, str]]:
    """What is wrong with plans that keep every limit on means, held against limits on percentiles."""
    kept = [plan for plan in plans if plan.feasible][:1]
    for plan in kept:
        means = {"ttft": plan.metrics["ttft_s"], "tpot": plan.metrics["tpot_s"], "e2e": plan.metrics["e2e_s"]}
        latency, share = rng.choice([name for name in means if means[name] > 0.0]), rng.choice(PERCENTS)
        limit = {f"{latency}_{share}_s": means[latency] * 10 ** rng.uniform(-0.2, 0.6)}
        tight = replace(study, constraints=replace(study.constraints, **limit))
        loose = replace(study, constraints=replace(study.constraints, **{k: 1.5 * v for k, v in limit.items()}))
        both = [with_percentiles(s, plan, percentile_limits(s), search_traffic(s, kept)) for s in (tight, loose)]
        yield from (("percentiles", f"{seen.plan} {limit}: {text}") for seen in both for text in _wrong(plan, seen))
        if both[1].p_meets < both[0].p_meets - 1e-9 or both[1].feasible < both[0].feasible:
            yield "percentiles", f"{plan.plan} {limit}: kept with {both[0].p_meets}, and 1.5 times it {both[1].p_meets}"


def _wrong(plan: PlanResult, seen: PlanResult) -> Iterator[str]:
    yield from STATEMENTS["margins"](Given(study=None, candidates=(), plans=[seen]))  # type: ignore[arg-type]
    if not 0.0 <= seen.p_meets <= plan.p_meets:
        yield f"p_meets is {seen.p_meets}, {plan.p_meets} by means"
    figures = seen.breakdown[PERCENTILES]
    for latency in ("ttft", "tpot", "itl", "e2e"):
        row = [figures[name] for share in PERCENTS if (name := f"{latency}_{share}_ms") in figures]
        if any(after < before - ROUNDING_MS for before, after in pairwise(row)):
            yield f"{latency} falls from percentile to percentile: {row}"
    for code, shown in seen.breakdown["simulated"].items():
        if not shown["likely_low"] <= shown["value"] <= shown["likely_high"]:
            yield f"{code}: {shown}"
