"""`autotune plan-day`: how many replicas of which plan at what time of the day, and what that was worth on a day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.planning.day_program import DayRules, Schedule, best_schedule, fixed_schedule
from autotune.planning.forecast import LEAST_PER_S, Forecast, forecast_day
from autotune.planning.loads import BIN_S, DAY_S, DayLoads, day_loads, minute_counts
from autotune.planning.replay import Replayed, recorded_day, replayed, surged
from autotune.planning.replica_capacity import ScaledPlan, scaled_plans
from autotune.planning.strategies import FIXED, ORACLE, PLANNED, Fleet, reactive, scheduled
from autotune.simulation.draw_requests import recorded_requests
from autotune.simulation.report_simulation import limits_of_requests
from autotune.study import Study, on_throughput
from autotune.traffic.traffic_log import TrafficLog
from costmodel.errors import InputError
from costmodel.plan.columns import Floats, Ints
from costmodel.simulation.requests import Requests

DRAWS = 4000
SEED = 11
SURGE = 2
"""Times the load in a surge."""
SURGE_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DayQuestion:
    """What is asked of a day."""

    step_s: float = 3600.0
    plans: int = 3
    """That may take turns, at most."""
    min_replicas: int = 1
    change_gpu_h: float = 0.5
    """GPU-hours that a change has to save."""
    risk: float = 0.05
    """Probability with which a step's load may exceed what the schedule has room for."""
    forecast_log_sd: float | None = None
    """Relative error of the forecast of a step; None: what past days say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """How probably limits break, as the load or the plan is not what is expected."""

    of_step: Floats
    """That the load of each step exceeds what there is room for, shape `(steps,)`."""
    of_day: float
    """That it does in any step."""
    of_day_with_calibration: float
    """The same where a replica may also take less or more than the cost model says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A strategy on the replayed day."""

    fleet: Fleet
    replay: Replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedDay:
    """A recorded day, served by every strategy, as it came and with surges."""

    number: int
    """Of the log's days, from 0."""
    unseen: bool
    """Whether the schedule was made from the days before alone; else of that day too, as there is no other."""
    requests: int
    load_per_s: Floats
    """As it came, requests per second in the fullest minute of each step."""
    as_it_came: tuple[Outcome, ...]
    surges_s: tuple[tuple[float, float], ...]
    with_surges: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DayPlan:
    """The answer."""

    study: Study
    source: str
    question: DayQuestion
    loads: DayLoads
    forecast: Forecast
    planned_per_s: Floats
    """The load that each step has room for, shape `(steps,)`."""
    plans: tuple[ScaledPlan, ...]
    rules: DayRules
    schedule: Schedule
    fixed: Schedule
    """The fewest replicas that are enough all day."""
    risk: Risk
    replay: ReplayedDay

    @property
    def keeps(self) -> bool:
        """Whether the cluster has room for the load of every step."""
        return not self.schedule.short_frac.any()


def plan_day(study: Study, source: str, log: TrafficLog, question: DayQuestion) -> DayPlan:
    """The schedule for the day that follows a log, and what such a schedule was worth on the last day of it.

    The study's cluster is the most that may run; the log is one day or more, or a part of one.

    Raises:
        InputError: the log cannot be planned by, no plan keeps the limits at any load, or a step is shorter than a
            replica takes to start.
    """
    study = on_throughput(study)
    loads = day_loads(source, log, step_s=question.step_s)
    forecast = forecast_day(loads, log_sd=question.forecast_log_sd)
    planned = forecast.quantile(1.0 - question.risk)
    plans = scaled_plans(study, loads, wanted=question.plans, load_per_s=planned)
    slowest = max(kind.start_s + kind.drain_s for p in plans for kind in p.kinds)
    if slowest > question.step_s:
        message = f"must be at least the {slowest:,.0f} s that a replica takes to start or drain ([switch] sets them)"
        raise InputError.single("--step", f"{message}, got {question.step_s:g} s")
    rules = DayRules(
        gpus=study.cluster.gpus,
        step_s=question.step_s,
        min_replicas=question.min_replicas,
        change_gpu_s=question.change_gpu_h * 3600.0,
        cyclic=loads.whole_day,
    )
    kinds = [plan.kinds for plan in plans]
    schedule = best_schedule(kinds, planned, rules)
    return DayPlan(
        study=study,
        source=source,
        question=question,
        loads=loads,
        forecast=forecast,
        planned_per_s=planned,
        plans=plans,
        rules=rules,
        schedule=schedule,
        fixed=fixed_schedule(kinds, planned, rules),
        risk=_risk(plans, schedule, forecast),
        replay=_replay(study, loads, plans, rules, question),
    )


def _risk(plans: Sequence[ScaledPlan], schedule: Schedule, forecast: Forecast) -> Risk:
    """Days drawn from the forecast, against what the schedule has room for."""
    random = np.random.default_rng(SEED)
    loads = forecast.draws(DRAWS, random)
    spread = np.array([p.capacity_log_sd for p in plans])[schedule.plan]
    beyond = loads > schedule.room_per_s
    uncertain = loads > schedule.room_per_s * np.exp(random.standard_normal((DRAWS, 1)) * spread)
    return Risk(
        of_step=beyond.mean(axis=0),
        of_day=float(beyond.any(axis=1).mean()),
        of_day_with_calibration=float(uncertain.any(axis=1).mean()),
    )


def _replay(
    study: Study, loads: DayLoads, plans: Sequence[ScaledPlan], rules: DayRules, question: DayQuestion
) -> ReplayedDay:
    """The last day that the log covers best, by a schedule made from the days before it."""
    covered = (~np.isnan(loads.peak_per_s)).sum(axis=1)
    number = int(np.flatnonzero(covered == covered.max())[-1])
    past = loads.first_days(number)
    unseen = number > 0 and not np.isnan(past.peak_per_s).all(axis=0).any()
    forecast = forecast_day(past if unseen else loads, log_sd=question.forecast_log_sd)
    planned = forecast.quantile(1.0 - question.risk)
    held = loads.requests_of_day(number)
    requests = recorded_requests(
        held.times_s,
        held.prompt.astype(np.int64),
        held.output.astype(np.int64),
        None if held.cached is None else held.cached.astype(np.int64),
        study.workload.prefix_cache_hit_frac,
    )
    # of a thinned log every row stands for several requests
    requests = surged(replace(requests, arrival_s=held.times_s), [(0.0, DAY_S)], round(held.requests_each))
    surges = surge_windows(loads, number, requests.arrival_s)

    def outcomes(served: Requests) -> tuple[Floats, tuple[Outcome, ...]]:
        counts = minute_counts(served.arrival_s, DAY_S)
        came = _fullest(counts, loads.starts_s, int(question.step_s // BIN_S))
        fleets = _fleets(plans, planned, came, counts, loads, rules)
        day = recorded_day(served, loads.starts_s, question.step_s)
        limits, given = limits_of_requests(study), study.constraints
        bounds = (given.ttft_s, given.tpot_s, given.e2e_s)
        # what several strategies run alike is served once
        served_by = {f.stretches: f for f in fleets}
        met = {serving: replayed(plans, f, day, limits, bounds) for serving, f in served_by.items()}
        return came, tuple(Outcome(fleet=f, replay=met[f.stretches]) for f in fleets)

    came, as_it_came = outcomes(requests)
    _, with_surges = outcomes(surged(requests, surges, SURGE))
    return ReplayedDay(
        number=number,
        unseen=unseen,
        requests=len(requests),
        load_per_s=came,
        as_it_came=as_it_came,
        surges_s=surges,
        with_surges=with_surges,
    )


def surge_windows(loads: DayLoads, number: int, arrival_s: Floats) -> tuple[tuple[float, float], ...]:
    """Beginning and end of each surge on a day of a log, seconds from midnight.

    One each in the fullest and in the quietest of the steps in which anything comes, which may be the same, from the
    minute in which the step's first request does: a log may begin within a step. Empty: on this day nothing comes.

    Args:
        loads: the log's steps.
        number: of the day, from 0.
        arrival_s: when that day's requests come, ascending, seconds from midnight.
    """
    first = np.searchsorted(arrival_s, loads.starts_s)
    beyond = np.searchsorted(arrival_s, loads.starts_s + loads.step_s)
    steady = np.where(beyond > first, loads.mean_per_s[number], np.nan)
    if np.isnan(steady).all():
        return ()
    windows = []
    for k in dict.fromkeys((int(np.nanargmax(steady)), int(np.nanargmin(steady)))):
        start = float(arrival_s[first[k]] // BIN_S * BIN_S)
        windows.append((start, min(start + SURGE_S, float(loads.starts_s[k] + loads.step_s))))
    return tuple(windows)


def _fullest(counts: Floats, starts_s: Ints, minutes: int) -> Floats:
    """Requests per second in the fullest minute of each step."""
    first = starts_s // int(BIN_S)
    return np.array([max(float(counts[k : k + minutes].max()) / BIN_S, LEAST_PER_S) for k in first])


def _fleets(
    plans: Sequence[ScaledPlan], planned: Floats, came: Floats, counts: Floats, loads: DayLoads, rules: DayRules
) -> tuple[Fleet, ...]:
    kinds = [plan.kinds for plan in plans]
    starts, step = loads.starts_s, rules.step_s
    fixed = fixed_schedule(kinds, planned, rules)
    plan = int(fixed.plan[0])
    return (
        scheduled(PLANNED, best_schedule(kinds, planned, rules), starts, step),
        scheduled(FIXED, fixed, starts, step),
        reactive(plan, kinds[plan], counts, starts, rules, float(came[0])),
        scheduled(ORACLE, best_schedule(kinds, came, rules), starts, step),
    )
