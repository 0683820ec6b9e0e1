"""The steps of a trace, what plans do in each, and what a rolling change serves on its way: computed once for all.

Where traffic is replayed as it came, a plan serves the requests of a step one by one in simulation, and its goodput is
those that keep every limit. Traffic that is scaled has no requests of its own, and where no latency is limited all
count: there a plan's goodput is what arrives, up to what it takes of that step's traffic within the limits by its
means; the rest is turned away. During a rolling change the replicas that serve, old and new, take what they can.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from autotune.comparison.best import at_capacity, best_plan
from autotune.comparison.compare_plans import on_traffic
from autotune.comparison.switching import switch_cost
from autotune.disaggregated.rescore import rescored
from autotune.retuning.replay_trace import Trace
from autotune.scoring.plan_result import Launch
from autotune.simulation.goodput import goodput
from autotune.simulation.percentile_limits import request_bounds
from autotune.simulation.simulate_plan import recorded_traffic, simulate_plan
from autotune.study import Study
from autotune.traffic.workload import with_traffic
from autotune.tuning import PlanResult
from costmodel.errors import InputError
from costmodel.simulation.requests import Requests
from costmodel.simulation.simulate import NoRoomError

FILL_S = 60.0
"""Of the trace before a step, which fills the servers and is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of a rolling change in which the same replicas serve."""

    start_s: float
    end_s: float
    before: PlanResult
    after: PlanResult
    serving_frac: float
    """Of the most that the better of both plans takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A rolling change, stretch by stretch."""

    segments: tuple[Segment, ...]
    gpu_s: float
    """GPU-seconds in which restarted GPUs serve nothing."""

    @property
    def end_s(self) -> float:
        """When the last replica serves."""
        return self.segments[-1].end_s


class Player:
    """The steps of a trace, with what plans do in each, computed once."""

    def __init__(self, study: Study, trace: Trace, *, step_s: float, window_s: float) -> None:
        """A step that the trace does not fill is left out. Raises `InputError` for fewer than two steps."""
        count = int(trace.ends_s[-1] // step_s)
        if count < 2:
            raise InputError.single("--step", f"must fit the trace at least twice, {trace.ends_s[-1]:.0f} s long")
        self.study, self.trace, self.step_s, self.window_s = study, trace, step_s, window_s
        self.starts = [k * step_s for k in range(count)]
        self.profiles = [trace.profile(s, s + step_s) for s in self.starts]
        self.seen: dict[Launch, PlanResult] = {}
        """Every launch that any strategy came upon."""
        self._counted: dict[tuple[int, Launch], float | None] = {}
        self._most: dict[tuple[int, Launch], PlanResult | None] = {}
        self._best: dict[tuple[float, float, tuple[str, ...]], PlanResult | None] = {}

    def offered_per_s(self, k: int) -> float:
        """Requests per second that arrive in a step."""
        profile = self.profiles[k]
        return 0.0 if profile is None else profile.rate.mean_per_s

    def step_study(self, k: int) -> Study | None:
        """The study under a step's traffic at its mean rate; None: hardly any came."""
        profile = self.profiles[k]
        return None if profile is None else with_traffic(self.study, profile, load="mean")

    def most_per_s(self, k: int, plan: PlanResult) -> float:
        """Requests per second that a plan takes of a step's traffic within the limits."""
        most = self._at_most(k, plan)
        return 0.0 if most is None else most.metrics["requests_per_s"]

    def _at_most(self, k: int, plan: PlanResult) -> PlanResult | None:
        key = (k, plan.launch)
        if key not in self._most:
            own = self.step_study(k)
            self._most[key] = None if own is None else at_capacity(own, plan)
        return self._most[key]

    def goodput_per_s(self, k: int, plan: PlanResult) -> float:
        """What a plan serves of a step within the limits."""
        self.seen.setdefault(plan.launch, plan)
        counted = self.counted_per_s(k, plan)
        return min(self.most_per_s(k, plan), self.offered_per_s(k)) if counted is None else counted

    def counted_per_s(self, k: int, plan: PlanResult) -> float | None:
        """Requests per second of a step that keep every limit, simulated one by one; None: they cannot be counted."""
        key = (k, plan.launch)
        if key not in self._counted:
            self._counted[key] = self._count(k, plan)
        return self._counted[key]

    def _count(self, k: int, plan: PlanResult) -> float | None:
        own, start = self.step_study(k), self.starts[k]
        if own is None or all(bound is None for bound in request_bounds(own).values()):
            return None
        requests = self.requests(max(start - FILL_S, 0.0), start + self.step_s)
        if requests is None:
            return None
        before = int(np.diff(np.searchsorted(self.trace.times_s, (max(start - FILL_S, 0.0), start)))[0])
        traffic = replace(recorded_traffic(requests), rate_per_s=self.offered_per_s(k), counted_from=before)
        try:
            simulation = simulate_plan(own, rescored(own, plan), traffic, with_range=False)
        except NoRoomError:
            return 0.0
        return goodput(own, traffic, simulation.forecast, gpus=1).value

    def requests(self, start_s: float, end_s: float) -> Requests | None:
        """The trace's requests of a stretch; None where it is scaled, or holds too few."""
        return self.trace.requests(start_s, end_s, self.study.workload.prefix_cache_hit_frac)

    def changing_per_s(self, k: int, segment: Segment) -> float:
        """What serves of a step within the limits in a stretch of a rolling change: no more than a whole plan would."""
        serving = segment.serving_frac * max(self.most_per_s(k, segment.before), self.most_per_s(k, segment.after))
        whole = max(self.goodput_per_s(k, segment.before), self.goodput_per_s(k, segment.after))
        return min(serving, self.offered_per_s(k), whole)

    def best(self, start_s: float, end_s: float, also: tuple[str, ...] = ()) -> PlanResult | None:
        """The best plan for a window; None: too little came, or nothing can be launched. `also` as in `best_plan`."""
        key = (start_s, end_s, also)
        if key not in self._best:
            profile = self.trace.profile(start_s, end_s)
            found = None if profile is None else best_plan(on_traffic(self.study, profile), also=also)
            self._best[key] = found
            if found is not None:
                self.seen.setdefault(found.launch, found)
        return self._best[key]

    def change(self, at_s: float, before: PlanResult, after: PlanResult) -> Change | None:
        """The rolling change from one plan to another that begins at a time; None: in a step without traffic."""
        k = min(int(at_s // self.step_s), len(self.starts) - 1)
        own = self.step_study(k)
        if own is None:
            return None
        most = self.most_per_s(k, before), self.most_per_s(k, after)
        # the old plan is run within its limits, the rest turned away; where no load keeps them, as it comes
        cost = switch_cost(
            own,
            self._at_most(k, before) or rescored(own, before),
            self._at_most(k, after) or rescored(own, after),
            capacities=most,
            load_requests_per_s=self.offered_per_s(k),
        )
        time, segments = at_s, []
        for wave in cost.waves:
            segments.append(
                Segment(
                    start_s=time,
                    end_s=time + wave.duration_s,
                    before=before,
                    after=after,
                    serving_frac=wave.capacity_requests_per_s / max(most) if max(most) > 0.0 else 0.0,
                )
            )
            time += wave.duration_s
        return Change(segments=tuple(segments), gpu_s=cost.gpu_s)


def overlaps(segment: Segment, edges: list[float]) -> list[tuple[int, float]]:
    """Steps that a stretch lies in, and for how many seconds; `edges` are the steps' beginnings and the last end."""
    return [
        (k, overlap)
        for k, (start, end) in enumerate(pairwise(edges))
        if (overlap := min(segment.end_s, end) - max(segment.start_s, start)) > 0.0
    ]
