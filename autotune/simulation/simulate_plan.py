"""One plan of a study, served by simulation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TypeVar

import numpy as np

from autotune.disaggregated.pool_rows import transfer_link
from autotune.disaggregated.rescore import both_pools, decoding
from autotune.engines import ENGINES
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.scoring.plan_result import PlanResult
from autotune.simulation.draw_requests import study_requests
from autotune.simulation.queue_growth import queue_grows
from autotune.study import Study
from costmodel.disaggregated.kv_transfer import exposed_s
from costmodel.disaggregated.pools import Pool
from costmodel.estimate.error_model import Correction, Situation
from costmodel.plan.columns import Floats
from costmodel.simulation.forecast import Forecast, StepErrors, with_ends
from costmodel.simulation.policies import CHUNKED, Policy
from costmodel.simulation.pools import OWN_STEPS, PoolsModel, slowed
from costmodel.simulation.requests import Requests
from costmodel.simulation.sampled_windows import SampledWindows, sample_windows
from costmodel.simulation.served import percentile
from costmodel.simulation.server import server_model
from costmodel.simulation.simulate import Routing, ServerModel, Simulated, simulate, simulate_closed

_Model = TypeVar("_Model", ServerModel, PoolsModel)
LEAST_BETWEEN_S = 1e-3
"""From one pool to the other, or from the front to the decode pool, at least."""
REQUESTS = 2000
"""Requests that a search simulates for each plan where no log gives them: 16 that count lie beyond p99."""
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
"""Share of drawn requests that fill the servers first and are not counted."""
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
        count = max(len(self.requests), WAVES * in_flight)
        return _closed(self.requests.take(np.arange(count) % len(self.requests)), in_flight)

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
        """Without the requests that fill the servers, and those during which a closed loop empties them."""
        last = 0 if self.rate_per_s is not None else self.concurrency or 1
        return done.counted(self.counted_from, len(self.requests) - last)


def _warm_up_s(request_s: float) -> float:
    return min(max(WARM_UP_REQUESTS * request_s, LEAST_WARM_UP_S), MOST_WARM_UP_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSimulation:
    """What came of it."""

    forecast: Forecast
    utilisation: float
    """Share of the time in which replicas ran steps, mean."""
    preemptions: int
    model: ServerModel | PoolsModel
    traffic: Traffic
    """With what the plan's caches find of it."""

    @property
    def server(self) -> ServerModel:
        """The model of a plan of one kind of replica.

        Raises:
            TypeError: the plan is disaggregated.
        """
        if not isinstance(self.model, ServerModel):
            raise TypeError("must be the simulation of a plan of one kind of replica")
        return self.model


def study_traffic(study: Study, *, rate_per_s: float | None = None, count: int = REQUESTS) -> Traffic:
    """The study's own traffic: that of its log; else drawn at its rate, or in a closed loop of its concurrency.

    At `rate_per_s`, where it is given, requests are drawn whatever the study has.
    """
    if study.workload.recorded is not None and rate_per_s is None:
        return recorded_traffic(study.workload.recorded)
    rate, in_flight = rate_per_s or study.workload.request_rate_per_s, study.workload.concurrency
    if rate is None:
        return closed_loop(study, in_flight or 1, count=count)
    return Traffic(
        requests=study_requests(study, count=count, rate_per_s=rate),
        rate_per_s=rate,
        concurrency=in_flight,
        counted_from=int(WARM_UP_FRAC * count),
        recorded=False,
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
    for: in a burst there are more of them than on average. Without a range it is simulated once, as it is expected.
    A disaggregated plan has the seats and token budgets of its pools, and its own routing.
    """
    if plan.pools is not None:
        pools, errors = pools_model(study, plan)
        return _simulated(pools, errors if with_range else replace(errors, pace_log_sd=0.0), traffic)
    model, errors = plan_server(study, plan, open_loop=traffic.rate_per_s is not None)
    model = replace(model, routing=routing)
    return _simulated(model, errors if with_range else replace(errors, pace_log_sd=0.0), traffic)


def plan_server(study: Study, plan: PlanResult, *, open_loop: bool) -> tuple[ServerModel, StepErrors]:
    """A plan of one kind of replica as it is simulated, and what the calibration says of its steps."""
    grid = KnobGrid.of(study, [Variant.of(plan)], [plan.knobs.max_num_batched_tokens])
    concurrency = np.array([float(plan.knobs.concurrency)])
    load, bounds = grid.load(concurrency), grid.bounds()
    model = server_model(
        grid.batch,
        load,
        policy=ENGINES[plan.engine].policy,
        longest_prompt=bounds["longest_prompt"],
        memory_fraction=bounds["memory_fraction"],
    )
    situation = Situation.of(grid.batch.layout, concurrency / model.replicas, load.isl, load.osl)
    return model, StepErrors.of(Correction.of(grid.batch.residual, situation), open_loop=open_loop)


def _simulated(model: _Model, errors: StepErrors, traffic: Traffic) -> PlanSimulation:
    """What a model makes of the traffic, at its expected and its likely paces."""
    traffic = traffic.with_caches(model)
    done = traffic.serve(model.paced(errors.pace))
    ends = traffic.of_ends(done) if errors.pace_log_sd else traffic
    base = done
    if traffic.sample is not None:
        base = replace(done, sample=ends.sample)
    elif ends.sample is not None:
        base = ends.serve(model.paced(errors.pace))
    found = with_ends(model, errors, ends.serve, expected=done, base=base)
    begin, end = done.served.requests.arrival_s.min(initial=np.inf), np.nanmax(done.served.finish_s, initial=0.0)
    lasted = max(float(end - min(begin, 0.0)), 1e-9) if traffic.sample is None else traffic.sample.simulated_s
    return PlanSimulation(
        forecast=found,
        utilisation=min(done.busy_s / lasted / model.replicas, 1.0),
        preemptions=done.preemptions,
        model=model,
        traffic=traffic,
    )


def pools_model(study: Study, plan: PlanResult) -> tuple[PoolsModel, StepErrors]:
    """Both pools of a plan with what measured pools say of their steps, and how sure that is.

    Steps of the decode pool are so much longer than the formulas' as at the load that the plan was ranked for. What is
    left of the error of TTFT is its own: the steps of a pool say little about it.
    """
    if plan.pools is None:
        raise ValueError(f"plan must be disaggregated, got {plan.plan}")
    prefill, decode = both_pools(study, plan)
    policy = ENGINES[plan.engine].policy
    factor = prefill.full_stage_s / prefill.full.stage_s
    first = _server(prefill, policy, seats=None, factor=factor)
    # nothing is prefilled here, so that no engine makes decoding wait for a prompt whose cache has come
    mixing = policy if policy.mixes else CHUNKED
    running = np.array([decoding(study, plan)])
    per_rank = running / decode.batch.layout.replicas / decode.batch.layout.attn_dp
    factor = decode.factors.decode(decode.batch, per_rank)
    second = _server(decode, mixing, seats=plan.pools.decode.max_num_seqs, factor=factor)
    if second.table.capture_tokens >= 0.0:
        # who comes with a cache is taken up by a captured step of decoding
        second = replace(second, table=replace(second.table, capture_tokens=inf))
    link = transfer_link(study, *(pool.batch.cells[0][1].gpu for pool in (prefill, decode)))
    sent_s = float((exposed_s(link, prefill.wire_s, decode.wire_s) + decode.start_s)[0])
    point = decode.at(running)
    handover_s = float(decode.handover_s(point.columns.latency_s)[0])
    own_s = OWN_STEPS * float(point.columns.latency_s[0])
    model = PoolsModel(
        prefill=first,
        decode=second,
        between_s=max(sent_s + handover_s - own_s, LEAST_BETWEEN_S),
        local_tokens=plan.pools.max_local_prefill_tokens,
        local_needs_hit=ENGINES[plan.engine].decode_pool_prefills == "cached",
        local_s=max(handover_s, LEAST_BETWEEN_S),
    )
    errors = StepErrors(
        pace=1.0,
        pace_log_sd=float(decode.factors.tpot_log_sd[0]),
        first=1.0,
        first_log_sd=float(prefill.factors.ttft_log_sd[0]),
    )
    return model, errors


def _server(pool: Pool, policy: Policy, *, seats: int | None, factor: Floats) -> ServerModel:
    """The replicas of one pool with steps of the length that was measured; `seats` None: the engine's own."""
    load = pool.load if seats is None else replace(pool.load, max_num_seqs=np.array([float(seats)]))
    found = server_model(
        pool.batch,
        load,
        policy=policy,
        longest_prompt=pool.longest_prompt,
        memory_fraction=pool.memory_fraction,
    )
    # what was measured of the hand-over from pool to pool stands in for that of prompts to decoding and for the front
    table = replace(slowed(found.table, float(factor[0])), handover_steps=0.0, frontend_s=0.0, token_s=0.0)
    return replace(found, table=table)
