"""A recorded day through the simulator, by replicas that come and go.

A request goes to the replicas that serve when it comes, one after the other; through pools, to a prefill worker when it
comes and to a decode worker when its cache has. What is taken away serves its requests to their end. Of a day with more
requests than are simulated, the fullest stretch of each step is served, so that what is said of it errs on the safe
side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.planning.loads import BIN_S
from autotune.planning.replica_capacity import ScaledPlan
from autotune.planning.strategies import Fleet, Stretch
from autotune.simulation.percentile_limits import PercentileLimit
from costmodel.plan.columns import Floats, Ints
from costmodel.simulation.forecast import Forecast
from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.requests import Requests
from costmodel.simulation.served import Served
from costmodel.simulation.simulate import ServerModel, Simulated, simulate
from costmodel.simulation.token_gaps import TokenGaps

MOST_REQUESTS = 8_000
"""Simulated for each strategy."""
JUDGED_REQUESTS = 20
"""Of a step, at least, for its limits to be judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDay:
    """The requests of a day that are served, and how much each step weighs."""

    requests: Requests
    step: Ints
    """Of each request."""
    weight: Floats
    """Of each step: requests that came in it, shape `(steps,)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What the requests of a day met."""

    attainment: Floats
    """Share of each step's requests that keep the limits on TTFT, TPOT and end to end at once; NaN: none came."""
    broken: tuple[tuple[str, ...], ...]
    """Limits that each step breaks, by their codes."""
    attainment_frac: float
    """Of the day: steps weighed by their requests."""

    @property
    def steps_broken(self) -> int:
        """Steps in which a limit breaks."""
        return sum(bool(codes) for codes in self.broken)


def recorded_day(requests: Requests, starts_s: Ints, step_s: float) -> RecordedDay:
    """Requests of a day with times from midnight, thinned to the fullest stretch of each step where there are many."""
    step = np.searchsorted(starts_s, requests.arrival_s, side="right") - 1
    inside = (step >= 0) & (requests.arrival_s < starts_s[np.maximum(step, 0)] + step_s)
    held, step = requests.take(np.flatnonzero(inside)), step[inside]
    weight = np.bincount(step, minlength=starts_s.size).astype(np.float64)
    share = MOST_REQUESTS / max(len(held), 1)
    if share < 1.0:
        length = max(step_s * share, 2.0 * BIN_S)
        kept = np.zeros(len(held), dtype=bool)
        for k, start in enumerate(starts_s):
            times = held.arrival_s[step == k]
            if times.size:
                middle = _fullest_minute(times, float(start), step_s)
                begin = min(max(middle - 0.75 * length, float(start)), float(start) + step_s - length)
                kept |= (held.arrival_s >= begin) & (held.arrival_s < begin + length) & (step == k)
        held, step = held.take(np.flatnonzero(kept)), step[kept]
    return RecordedDay(requests=held, step=step, weight=weight)


def replayed(
    plans: Sequence[ScaledPlan],
    fleet: Fleet,
    day: RecordedDay,
    limits: Sequence[PercentileLimit],
    bounds_s: tuple[float | None, float | None, float | None],
) -> Replayed:
    """Serve a day.

    `bounds_s`: TTFT, TPOT and end to end that one request has to keep; None: no limit.
    """
    first, finish = np.full(len(day.requests), np.inf), np.full(len(day.requests), np.inf)
    gaps = []
    plan = np.array([s.plan for s in fleet.stretches])[_stretch(fleet.stretches, day.requests.arrival_s)]
    for number in np.unique(plan).tolist():
        index = np.flatnonzero(plan == number)
        simulation = plans[number].simulation
        model = simulation.model.paced(simulation.forecast.errors.pace)
        run = _through(model, [s for s in fleet.stretches if s.plan == number], day.requests.take(index))
        first[index], finish[index] = run.served.first_token_s, run.served.finish_s
        gaps.append(run.gaps)
    served, all_gaps = Served(requests=day.requests, first_token_s=first, finish_s=finish), TokenGaps.joined(gaps)
    kept = served.keeps(ttft_s=bounds_s[0], tpot_s=bounds_s[1], e2e_s=bounds_s[2])
    steps = day.weight.size
    came = np.bincount(day.step, minlength=steps)
    with np.errstate(invalid="ignore"):
        attainment = np.bincount(day.step, weights=kept, minlength=steps) / came
    broken = tuple(
        _broken(served, all_gaps, np.flatnonzero(day.step == k), limits, plans) if came[k] >= JUDGED_REQUESTS else ()
        for k in range(steps)
    )
    some = came > 0
    return Replayed(
        attainment=attainment,
        broken=broken,
        attainment_frac=float(np.average(attainment[some], weights=day.weight[some])) if some.any() else float("nan"),
    )


def surged(requests: Requests, windows_s: Sequence[tuple[float, float]], factor: int) -> Requests:
    """Requests of which those within windows come `factor` times, the copies at the times of their neighbours."""
    times = requests.arrival_s
    inside = np.flatnonzero(np.any([(times >= a) & (times < b) for a, b in windows_s], axis=0))
    copies = [requests]
    for number in range(1, factor):
        following = times[np.minimum(inside + 1, times.size - 1)]
        moved = times[inside] + (following - times[inside]) * number / factor
        copies.append(replace(requests.take(inside), arrival_s=moved))
    joined = Requests(
        arrival_s=np.concatenate([c.arrival_s for c in copies]),
        prompt=np.concatenate([c.prompt for c in copies]),
        cached=np.concatenate([c.cached for c in copies]),
        output=np.concatenate([c.output for c in copies]),
    )
    return joined.take(np.argsort(joined.arrival_s, kind="stable"))


def _stretch(stretches: Sequence[Stretch], times_s: Floats) -> Ints:
    """Of each time the last stretch that has begun."""
    starts = np.array([s.start_s for s in stretches])
    return np.clip(np.searchsorted(starts, times_s, side="right") - 1, 0, None)


def _through(model: ServerModel | PoolsModel, stretches: Sequence[Stretch], requests: Requests) -> Simulated:
    """Requests of one plan through the replicas that come and go, or through those of its two pools."""
    if not isinstance(model, PoolsModel):
        return _replicas(model, stretches, 0, requests)

    def prefill(prompts: Requests) -> Simulated:
        return _replicas(model.prefill, stretches, 0, prompts)

    def decode(handed: Requests) -> Simulated:
        return _replicas(model.decode, stretches, 1, handed)

    return model.in_series(prefill, decode, requests)


def _replicas(model: ServerModel, stretches: Sequence[Stretch], side: int, requests: Requests) -> Simulated:
    """Requests through as many replicas of one kind as serve when each of them comes."""
    counts = np.array([max(s.replicas[side], 1) for s in stretches])[_stretch(stretches, requests.arrival_s)]
    turn = np.arange(len(requests)) % counts
    first, finish = np.full(len(requests), np.inf), np.full(len(requests), np.inf)
    runs = []
    for replica in range(int(counts.max(initial=0))):
        index = np.flatnonzero(turn == replica)
        if index.size:
            run = simulate(model, requests.take(index))
            first[index], finish[index] = run.served.first_token_s, run.served.finish_s
            runs.append(run)
    return Simulated.of_runs(Served(requests=requests, first_token_s=first, finish_s=finish), runs)


def _broken(
    served: Served, gaps: TokenGaps, index: Ints, limits: Sequence[PercentileLimit], plans: Sequence[ScaledPlan]
) -> tuple[str, ...]:
    own = Served(
        requests=served.requests.take(index), first_token_s=served.first_token_s[index], finish_s=served.finish_s[index]
    )
    # tokens that came while requests of the step arrived; its last requests' later ones count in the next step
    arrived_s = own.requests.arrival_s
    meanwhile = gaps.after(float(arrived_s[0]), float(arrived_s[-1]))
    run = Simulated(served=own, gaps=meanwhile, preemptions=0, busy_s=0.0, timeline=())
    # requests that come whatever the servers do: no plan's first tokens are moved
    found = Forecast(expected=run, quick=run, slow=run, base=run, errors=plans[0].simulation.forecast.errors)
    return tuple(limit.code for limit in limits if not limit.kept(limit.figure(found)))


def _fullest_minute(times_s: Floats, start_s: float, step_s: float) -> float:
    bins = max(int(step_s // BIN_S), 1)
    counts = np.bincount(np.minimum(((times_s - start_s) // BIN_S).astype(np.int64), bins - 1), minlength=bins)
    return start_s + (int(counts.argmax()) + 0.5) * BIN_S
