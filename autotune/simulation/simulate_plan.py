"""One plan of a study, served by simulation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, exp

import numpy as np

from autotune.disaggregated.rescore import rescored
from autotune.scoring.plan_result import PlanResult
from autotune.simulation.draw_requests import SEED, study_requests
from autotune.simulation.plan_models import plan_model
from autotune.simulation.queue_growth import queue_grows
from autotune.simulation.room import most_in_flight
from autotune.simulation.session_requests import session_requests
from autotune.study import Constraints, Study
from costmodel.estimate.normal import Z90
from costmodel.simulation.forecast import Forecast, StepErrors, with_ends
from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.requests import Requests
from costmodel.simulation.sampled_windows import SampledWindows, sample_windows
from costmodel.simulation.served import percentile
from costmodel.simulation.simulate import Routing, ServerModel, Simulated, simulate, simulate_closed

REQUESTS = 2000
"""Requests that a search simulates for each plan where no log gives them, at least: 16 that count lie beyond p99."""
REQUESTS_OF_ONE = 4000
"""The same of a plan that is looked at alone."""
LONG_LOG = 20_000
"""Requests of a log from which on a search simulates a sample of it."""
LEAST_WARM_UP_S, MOST_WARM_UP_S = 5.0, 300.0
WARM_UP_REQUESTS = 1.25
"""Times that a request takes, of the warm-up of a window."""
LONG_SHARE = 90.0
"""Percentile of the times that requests take by which the windows of a long log are measured."""
WARM_UP_FRAC = 0.2
"""Share of drawn requests that fill the servers first and are not counted, at least."""
WARM_UP_TIMES, COUNTED_TIMES = 3.0, 3.0
"""Times that a request takes in which drawn requests fill the servers, and in which others come that count, at least.
After two of them requests take a tenth less time than in the end on a server that is nine tenths full, after three a
twentieth."""
TAKES_LONGER = 1.25
"""Requests that would settle a plan over those that were drawn, from which on they are drawn anew, once: they take
longer than was thought."""
WAVES, WARM_UP_WAVES = 9, 3
"""Requests of a closed loop over those in flight, at least, and those that begin together and are not counted; the last
of them, beside which others are no more sent, are not either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a plan is asked to serve."""

    requests: Requests
    """Of a closed loop only the lengths count."""
    rate_per_s: float | None
    """Mean rate of arrivals; None: a closed loop."""
    concurrency: int | None
    """Requests in flight of a closed loop."""
    counted_from: int
    """The first request that counts: those before it fill the servers."""
    recorded: bool
    """Whether a log gives the requests, so that their times and lengths are not drawn."""
    sample: SampledWindows | None = None
    """Of a long log, what of it is simulated."""
    warm_up_s: float = 0.0
    """What the length of its windows was chosen by."""
    behind: int = 0
    """The last requests, which do not count: fewer and fewer are served beside them, as no others come."""
    least: int = 0
    """Requests that are drawn for a plan, at least; 0: no others are than `requests`, which each plan serves whole."""

    def sampled(self, request_s: float) -> Traffic:
        """A long log by windows that stand for it; anything else as it is.

        Args:
            request_s: seconds that requests take, of most plans, which a window's warm-up is measured by.
        """
        if not self.recorded or len(self.requests) < LONG_LOG:
            return self
        warm_up_s = _warm_up_s(request_s)
        return replace(self, sample=sample_windows(self.requests, warm_up_s), warm_up_s=warm_up_s)

    def for_plan(self, request_s: float) -> Traffic:
        """The same windows of a sample for a plan whose requests take so long: with shorter warm-ups if they may be."""
        if self.sample is None or (own_s := _warm_up_s(request_s)) >= self.warm_up_s:
            return self
        return replace(self, sample=sample_windows(self.requests, self.warm_up_s, own_s))

    def filling(self, study: Study, *, alike: float, in_flight: float) -> Traffic:
        """What comes to one part of a plan, until its servers have filled and settled, and then counts.

        Args:
            study: whose requests are drawn.
            alike: how many such parts the plan is, to which requests go in turn.
            in_flight: requests that the part has at once.
        """
        if self.rate_per_s is None:
            raise ValueError("must be traffic of a rate")
        warm_up = max(int(WARM_UP_FRAC * self.least), ceil(WARM_UP_TIMES * in_flight))
        counted = max(self.least - int(WARM_UP_FRAC * self.least), ceil(COUNTED_TIMES * in_flight))
        behind = ceil(in_flight)
        drawn = study_requests(study, count=warm_up + counted + behind, rate_per_s=self.rate_per_s, alike=alike)
        return replace(self, requests=drawn, rate_per_s=self.rate_per_s / alike, counted_from=warm_up, behind=behind)

    def with_caches(self, model: ServerModel | PoolsModel) -> Traffic:
        """The same with what a plan's own caches find of a log's blocks: each attention rank's of what comes to it."""
        side = model.prefill if isinstance(model, PoolsModel) else model
        own = self.requests.with_caches(caches=side.replicas * side.table.ranks, tokens=side.limits.kv_tokens)
        sample = self.sample
        if sample is not None:
            sample = replace(sample, requests=replace(sample.requests, cached=own.cached[sample.place]))
        return replace(self, requests=own, sample=sample)

    def of_ends(self, expected: Simulated) -> Traffic:
        """What tells the likely range of what was `expected`: of a long log some windows, unless a queue grows."""
        if self.sample is not None:
            return replace(self, sample=self.sample.thinned())
        if not self.recorded or len(self.requests) < LONG_LOG or queue_grows(expected):
            return self
        return self.sampled(percentile(expected.served.e2e_s, LONG_SHARE))

    def in_closed_loop(self, in_flight: int) -> Traffic:
        """The same lengths, over and over, of which so many requests are in flight at any time."""
        count = max(REQUESTS, WAVES * in_flight)
        requests = self.requests.take(np.arange(count) % len(self.requests))
        # those that begin together end one after the other, as if they had come so
        left = np.random.default_rng(SEED).permutation(in_flight) / in_flight
        requests.output[:in_flight] = np.maximum(requests.output[:in_flight] * left, 1.0).astype(np.int64)
        return _closed(requests, in_flight)

    def serve(self, model: ServerModel | PoolsModel, *, timeline: bool = False) -> Simulated:
        """All requests through a plan; those that count are kept."""
        if isinstance(model, PoolsModel):
            return self._through_pools(model, timeline=timeline)
        if self.sample is not None:
            return simulate(model, self.sample.requests, counted=self.sample.window >= 0).sampled(self.sample)
        own = self.requests
        if self.rate_per_s is None:
            done = simulate_closed(
                model, own.prompt, own.cached, own.output, concurrency=self.concurrency or 1, timeline=timeline
            )
        else:
            done = simulate(model, own, timeline=timeline)
        return self._counted(done)

    def _through_pools(self, model: PoolsModel, *, timeline: bool) -> Simulated:
        """The same of a disaggregated plan."""
        if self.sample is not None:
            return model.open_loop(self.sample.requests).sampled(self.sample)
        own = self.requests
        if self.rate_per_s is not None:
            done = model.open_loop(own, timeline=timeline)
        else:
            in_flight = self.concurrency or 1
            done = model.closed_loop(own.prompt, own.cached, own.output, concurrency=in_flight, timeline=timeline)
        return self._counted(done)

    def _counted(self, done: Simulated) -> Simulated:
        """Without the requests that fill the servers, and those during which they empty."""
        return done.counted(self.counted_from, len(self.requests) - self.behind)


def _warm_up_s(request_s: float) -> float:
    return min(max(WARM_UP_REQUESTS * request_s, LEAST_WARM_UP_S), MOST_WARM_UP_S)


@dataclass(frozen=True, kw_only=True)
class PlanSimulation:
    """What came of it. What else is asked of it is simulated once, when it is asked for."""

    in_proportion: Forecast
    """As expected, with times as much shorter and longer as steps may be: `forecast` is the likely range."""
    utilisation: float
    """Share of the time in which replicas ran steps, mean."""
    preemptions: int
    study: Study
    plan: PlanResult
    model: ServerModel | PoolsModel
    traffic: Traffic
    """What was served of it, with what the plan's caches find: all of it, or what comes to one part of the plan."""
    part: ServerModel | PoolsModel
    """The part of the model that was simulated: all of it, or one that the others are like and meet the same as."""
    alike: float
    """How many times this part the plan is."""
    closed_loops_per_s: dict[int, float] = field(default_factory=dict, init=False, compare=False)
    """What one part was found to serve with so many in flight, requests per second."""

    @property
    def server(self) -> ServerModel:
        """The model of a plan of one kind of replica.

        Raises:
            TypeError: the plan is disaggregated.
        """
        if not isinstance(self.model, ServerModel):
            raise TypeError("must be the simulation of a plan of one kind of replica")
        return self.model

    @property
    def expected(self) -> Simulated:
        """What was simulated at the expected pace."""
        return self.in_proportion.expected

    @property
    def errors(self) -> StepErrors:
        """How sure the length of steps is."""
        return self.in_proportion.errors

    def paced_with(self, in_flight: int) -> ServerModel | PoolsModel:
        """The plan with steps of the length that is expected where so many requests are in flight over all of it."""
        work = replace(self.study.workload, request_rate_per_s=None, rate_levels_per_s=(), concurrency=in_flight)
        # no limit keeps any of them waiting
        filled = replace(self.study, workload=work, constraints=Constraints())
        routing = Routing.ROUND_ROBIN if isinstance(self.model, PoolsModel) else self.model.routing
        model, errors = plan_model(filled, rescored(filled, self.plan), open_loop=True, routing=routing)
        return model.paced(errors.pace)

    @cached_property
    def forecast(self) -> Forecast:
        """With the likely range of steps' length drawn through the simulation, which is run at both of its ends."""
        done, errors, traffic = self.expected, self.errors, self.traffic
        ends = traffic.of_ends(done) if errors.pace_log_sd else traffic
        base = done
        if traffic.sample is not None:
            base = replace(done, sample=ends.sample)
        elif ends.sample is not None:
            base = ends.serve(self.part.paced(errors.pace))
        return with_ends(self.part, errors, ends.serve, expected=done, base=base)


def at_rate(study: Study, rate_per_s: float) -> Study:
    """The study with so many requests per second, drawn whatever it has: those of sessions as sessions."""
    work, recorded = study.workload, None
    if work.recorded is not None and work.sessions is not None and work.turn is not None:
        recorded = session_requests(study, work.sessions, rate_per_s)
    at = replace(work, request_rate_per_s=rate_per_s, rate_levels_per_s=(), concurrency=None, recorded=recorded)
    return replace(study, workload=at)


def study_traffic(
    study: Study, *, rate_per_s: float | None = None, count: int = REQUESTS, exactly: bool = False
) -> Traffic:
    """The study's own traffic: that of its log; else drawn at its rate, or in a closed loop of its concurrency.

    At `rate_per_s`, where it is given, requests are drawn whatever the study has, those of sessions as sessions. At a
    rate `count` are drawn for a plan at least, as many as fill its servers and settle them, and no more where they are
    to be `exactly` so many.
    """
    own = study.workload if rate_per_s is None else at_rate(study, rate_per_s).workload
    recorded, sessions = own.recorded, own.sessions
    if recorded is not None:
        found = recorded_traffic(recorded)
        # a log has its own beginning; sessions are drawn from the midst of traffic, which servers are full of
        return replace(found, counted_from=0 if sessions is None else int(WARM_UP_FRAC * len(recorded)))
    rate, in_flight = own.request_rate_per_s, own.concurrency
    if rate is None:
        return closed_loop(study, in_flight or 1, count=count)
    return Traffic(
        requests=study_requests(study, count=count, rate_per_s=rate),
        rate_per_s=rate,
        concurrency=in_flight,
        counted_from=int(WARM_UP_FRAC * count),
        recorded=False,
        least=0 if exactly else count,
    )


def closed_loop(study: Study, in_flight: int, *, count: int = REQUESTS) -> Traffic:
    """The study's lengths in a closed loop of so many requests in flight, at least `WAVES` times as many in all."""
    return _closed(study_requests(study, count=max(count, WAVES * in_flight), rate_per_s=1.0), in_flight)


def _closed(requests: Requests, in_flight: int) -> Traffic:
    """A closed loop of requests, of which there are at least `WAVES` times as many as are in flight."""
    return Traffic(
        requests=requests,
        rate_per_s=None,
        concurrency=in_flight,
        counted_from=max(int(WARM_UP_FRAC * len(requests)), WARM_UP_WAVES * in_flight),
        recorded=False,
        behind=in_flight,
    )


def recorded_traffic(requests: Requests) -> Traffic:
    """Requests of a log at their own times, all of which count."""
    lasted_s = float(requests.arrival_s[-1] - requests.arrival_s[0])
    return Traffic(
        requests=requests,
        rate_per_s=len(requests) / lasted_s,
        concurrency=None,
        counted_from=0,
        recorded=True,
    )


def simulate_plan(
    study: Study,
    plan: PlanResult,
    traffic: Traffic,
    *,
    routing: Routing = Routing.ROUND_ROBIN,
    with_range: bool = True,
) -> PlanSimulation:
    """Serve traffic by a plan with its dtypes and token budget, and the engine options of the study or its own.

    Engines let in as many sequences as `max_num_seqs` of these says, whatever concurrency the plan was ranked
    for: in a burst there are more of them than on average. A disaggregated plan has the seats and token budgets of its
    pools, and its own routing.

    Args:
        study: whose requests and engine options these are.
        plan: what serves, scored for the load that comes: how long its steps are depends on how many share them.
        traffic: what comes.
        routing: how the router in front of the replicas chooses one.
        with_range: whether steps have a likely range, so that there is one to be drawn.
    """
    model, errors = plan_model(study, plan, open_loop=traffic.rate_per_s is not None, routing=routing)
    errors = errors if with_range else replace(errors, pace_log_sd=0.0)
    alike, part = 1.0, model
    if traffic.least:
        alike, part = model.parts, model.part
        served, done = _settled(study, plan, model, errors, traffic)
    else:
        served = traffic.with_caches(model)
        done = served.serve(model.paced(errors.pace))
    begin, end = done.served.requests.arrival_s.min(initial=np.inf), np.nanmax(done.served.finish_s, initial=0.0)
    lasted = max(float(end - min(begin, 0.0)), 1e-9) if served.sample is None else served.sample.simulated_s
    return PlanSimulation(
        in_proportion=Forecast.in_proportion(done, errors),
        utilisation=min(done.busy_s / lasted / part.replicas, 1.0),
        preemptions=done.preemptions,
        study=study,
        plan=plan,
        model=model,
        traffic=served,
        part=part,
        alike=alike,
    )


def _settled(
    study: Study, plan: PlanResult, model: ServerModel | PoolsModel, errors: StepErrors, offered: Traffic
) -> tuple[Traffic, Simulated]:
    """Requests that come to one part of a plan, as many as settle it, and what they meet.

    How many these are is told by the time that requests take, of the closed form first, and at the slow end of the
    likely range; where they take far longer in the simulation, by that. No more fill a part than it has room for: what
    comes beyond waits in front of it.
    """
    part, alike = model.part, model.parts
    rate = (offered.rate_per_s or 0.0) / alike
    most = most_in_flight(part, offered.requests, generated_frac=0.5)
    spread = exp(Z90 * errors.pace_log_sd)

    def drawn(request_s: float) -> Traffic:
        own = offered.filling(study, alike=alike, in_flight=min(rate * request_s * spread, most))
        return own.with_caches(part)

    traffic = drawn(plan.metrics["e2e_s"])
    done = traffic.serve(part.paced(errors.pace))
    longer = drawn(float(done.served.e2e_s.mean()))
    if len(longer.requests) <= TAKES_LONGER * len(traffic.requests):
        return traffic, done
    return longer, longer.serve(part.paced(errors.pace))
