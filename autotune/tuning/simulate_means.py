"""Means by simulation, where the closed form is known to miss them.

Two kinds of closed loops are (`benchmarks/closed_form.py` measures them): of short outputs, where requests that end
together come back together and share their prefill, and those in which much of the time goes to prompts. Of the former
the leading plans are simulated; of the latter the answer says it. What comes of it moves the closed form as the
calibration's residuals do, so that the load is solved for anew, and parts, rates, limits and probabilities follow from
one formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autotune.scoring.best_knobs import KnobGridAtLoad
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.scoring.limits import hard_limit
from autotune.scoring.plan_result import PlanResult, relative_excess
from autotune.scoring.solve_concurrency import solve_concurrency
from autotune.simulation.simulate_plan import closed_loop, plan_server
from autotune.study import Study
from autotune.tuning.plan_order import rank

SHORT_OUTPUT_TOKENS = 50.0
"""Mean output below which requests of a closed loop bunch."""
MUCH_PROMPT_FRAC = 1.0 / 3.0
"""Share of the time of a stage in which prompts run, from which on means are off by more than 10 % in many plans."""
LEADING = 5
"""First places that only plans have whose means are known well enough."""
MOST_SIMULATED = 30
MOST_LOADS = 3
"""Loads of a plan that are simulated, where its load is solved for."""
NEAR = 0.3
"""Excess over a limit, relative to it, that an error of the closed form may be: nine of ten plans are off by less."""
REQUESTS = 300
"""Of a replica, at least."""
SIMULATED_MEANS = "simulated_means"
"""Part of the breakdown of a plan whose means are simulated: what the closed form says of them."""
LEAST_FACTOR = 0.01


def closed_form_misses(study: Study, plan: PlanResult) -> bool:
    """Whether the closed form's means of a plan are known to be off, and are taken from a simulation."""
    work = study.workload
    closed = work.request_rate_per_s is None and work.recorded is None
    return closed and plan.pools is None and work.osl.mean < SHORT_OUTPUT_TOKENS


def prompts_fill(plan: PlanResult) -> bool:
    """Whether prompts take much of the time of a plan of one kind of replica."""
    passes_s = sum(plan.breakdown["prefill_s"].values()) * plan.breakdown["prefill_passes_per_request"]
    prompt_frac = passes_s / plan.layout.pp * plan.metrics["requests_per_s"] / plan.layout.replicas
    return prompt_frac >= MUCH_PROMPT_FRAC


def simulate_means(study: Study, plans: Sequence[PlanResult]) -> tuple[PlanResult, ...]:
    """Plans, of which each that the closed form misses and that comes to the first places has been simulated.

    The closed form is no bound here: a plan that it puts far behind is not looked at.
    """
    known = {plan.key: plan for plan in plans}
    head = _first(study, plans, MOST_SIMULATED)
    while (plan := next((p for p in head[:LEADING] if _to_simulate(study, p)), None)) is not None:
        known[plan.key] = with_simulated_means(study, plan)
        head = _first(study, [known[p.key] for p in head], MOST_SIMULATED)
    return tuple(known.values())


def _first(study: Study, plans: Sequence[PlanResult], count: int) -> list[PlanResult]:
    """The first of them, those that break a limit behind all that keep it."""
    ranked, others = rank(study, plans)
    return [*ranked, *others][:count]


def _to_simulate(study: Study, plan: PlanResult) -> bool:
    """Whether a plan is to be simulated and has not been; nothing is found about one that is far from its limits."""
    near = all(relative_excess(broken) <= NEAR and not hard_limit(broken.code) for broken in plan.violations)
    return near and SIMULATED_MEANS not in plan.breakdown and closed_form_misses(study, plan)


def with_simulated_means(study: Study, plan: PlanResult) -> PlanResult:
    """A plan with the mean TTFT and TPOT of simulated requests, at the load that is best for it then."""
    grid = KnobGrid.of(study, [Variant.of(plan)], [plan.knobs.max_num_batched_tokens])
    tried: dict[int, PlanResult] = {}
    load = plan.knobs.concurrency
    while load not in tried and len(tried) < MOST_LOADS:
        at = np.array([float(load)])
        formula = KnobGridAtLoad(grid, at).result(0)
        moved = _as_simulated(study, grid, formula)
        found = KnobGridAtLoad(moved, at).result(0)
        said = {name: formula.metrics[name] for name in ("ttft_s", "tpot_s", "requests_per_s")}
        tried[load] = replace(found, breakdown={**found.breakdown, SIMULATED_MEANS: {"closed_form": said}})
        load = round(float(solve_concurrency(moved)[0]))
    return _first(study, list(tried.values()), 1)[0]


def _as_simulated(study: Study, grid: KnobGrid, plan: PlanResult) -> KnobGrid:
    """The plan's row, its expected errors such that its estimate is what simulated requests took."""
    ttft_s, tpot_s = simulated_means(study, plan)
    metrics, wait_s = plan.metrics, plan.breakdown["ttft_parts_s"].get("kv_wait", 0.0)
    first_s, rest_s = metrics["ttft_s"] - wait_s, metrics["e2e_s"] - metrics["ttft_s"]
    tpot_factor = tpot_s / metrics["tpot_s"] if tpot_s > 0.0 and metrics["tpot_s"] > 0.0 else 1.0
    # who waits for cache does so for as much longer as those who have it take (`Latencies.moved`)
    waits = wait_s / (first_s + rest_s)
    ttft_factor = (ttft_s - waits * rest_s * tpot_factor) / (first_s * (1.0 + waits))
    residual = grid.batch.residual
    if residual is None:
        raise ValueError("must be a grid with the calibration's residuals")
    moved = residual.moved(ttft_factor=max(ttft_factor, LEAST_FACTOR), tpot_factor=tpot_factor)
    return replace(grid, batch=replace(grid.batch, residual=moved))


def simulated_means(study: Study, plan: PlanResult) -> tuple[float, float]:
    """Mean TTFT, and mean time per output token after the first, of simulated requests, s; one replica stands for all.

    They take turns at the replicas in a closed loop, so that each has its own whatever the others do.
    """
    model, errors = plan_server(study, plan, open_loop=False)
    in_flight = max(round(plan.knobs.concurrency / model.replicas), 1)
    traffic = closed_loop(study, in_flight, count=REQUESTS)
    served = traffic.serve(replace(model, replicas=1).paced(errors.pace)).served
    after_first = np.maximum(served.requests.output - 1, 0).sum()
    tpot_s = float((served.finish_s - served.first_token_s).sum() / max(after_first, 1))
    return float(served.ttft_s.mean()) * errors.first, tpot_s
