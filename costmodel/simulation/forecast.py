"""What a simulation says of real requests, with the calibration's errors in it.

The calibration knows how much longer steps are than the formulas say, and how sure that is. Waiting answers to it more
than in proportion, so that the error is drawn through the simulation: it runs with steps of the length that is
expected, and at both ends of the 80 % likely range. What a first token is off by beyond its steps is a factor. The ends
may serve fewer requests, of a long log: how much slower these are than the same ones at the expected pace says it for
all. Of a plan that is out of the question its ends may be told from the expected pace alone: in proportion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from costmodel.estimate.batch import PlanBatch
from costmodel.estimate.error_model import TARGET_CORRELATION, Correction, Situation
from costmodel.estimate.normal import Z90
from costmodel.plan.columns import Floats
from costmodel.serving.load import Load
from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.served import PERCENTILES, Figures, Served
from costmodel.simulation.simulate import ServerModel, Simulated

_Model = TypeVar("_Model", ServerModel, PoolsModel, ServerModel | PoolsModel)
STATISTICS = ("mean", *(f"p{share}" for share in PERCENTILES))
REQUEST_LATENCIES = ("ttft", "tpot", "e2e")
"""Those that each request has one of."""
LATENCIES = ("ttft", "tpot", "itl", "e2e")
"""`itl` is of the gaps between tokens, of which a request has many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likely:
    """A figure and its 80 % likely range."""

    value: float
    low: float
    high: float
    first_log: float = 0.0
    """Of the range's half widths, as logarithms, what first tokens are off by for themselves; the rest of it, as the
    root of its square, is the steps' pace."""

    @classmethod
    def of(cls, value: float) -> Likely:
        """A figure without an error."""
        return cls(value=value, low=value, high=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepErrors:
    """What the calibration says of one plan's steps and first tokens."""

    pace: float
    """Expected length of a step over the formulas'."""
    pace_log_sd: float
    first: float
    """Expected TTFT over what the simulation gives once steps have that length."""
    first_log_sd: float
    """Of the error that TTFT has for itself."""

    @classmethod
    def of(
        cls, batch: PlanBatch, load: Load, *, open_loop: bool, longest_prompt: Floats, memory_fraction: Floats
    ) -> StepErrors:
        """Of the one plan of a batch, with as many in flight as its load has; arguments as `PlanBatch.evaluate`'s.

        What first tokens were off by in closed loops is mostly how a benchmark's requests bunch, which arrivals that
        do not wait do not: there it is no expectation, but adds to what is not known. In a closed loop it is counted
        with the wait for others to end, which lasts as long as those take.
        """
        situation = Situation.of(batch.layout, load.concurrency / batch.layout.replicas, load.isl, load.osl)
        correction = Correction.of(batch.residual, situation)
        ttft_factor = correction.ttft_factor
        if batch.residual is not None and not open_loop:
            both = (
                plans.evaluate(load, longest_prompt=longest_prompt, memory_fraction=memory_fraction).ttft_s
                for plans in (batch, replace(batch, residual=None))
            )
            ttft_factor = np.divide(*both)

        def at(values: Floats) -> float:
            return float(values[0])

        pace = at(correction.tpot_factor)
        first = at(ttft_factor) / pace
        own_sd = at(correction.ttft_log_sd) * float(np.sqrt(1.0 - TARGET_CORRELATION**2))
        return cls(
            pace=pace,
            pace_log_sd=at(correction.tpot_log_sd),
            first=1.0 if open_loop else first,
            first_log_sd=float(np.hypot(own_sd, np.log(first))) if open_loop else own_sd,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Requests served by one plan: as expected, and at both ends of the likely range of its steps' length."""

    expected: Simulated
    quick: Simulated
    slow: Simulated
    errors: StepErrors
    base: Simulated
    """The requests of `quick` and `slow` as expected: all of them, or some."""

    @classmethod
    def in_proportion(cls, expected: Simulated, errors: StepErrors) -> Forecast:
        """What was simulated at its expected pace alone, with every time as much shorter and longer as a step may be.

        Waiting answers to the length of steps more than that: the likely range is wider where there is much of it.
        """
        quick, slow = (expected.slowed(float(np.exp(z * errors.pace_log_sd))) for z in (-Z90, Z90))
        return cls(expected=expected, quick=quick, slow=slow, errors=errors, base=expected)

    def statistics(self) -> dict[tuple[str, str], float]:
        """Every one of `STATISTICS` of each of `LATENCIES` as expected, seconds."""
        return {
            (name, statistic): value
            for name in LATENCIES
            for statistic, value in _figures(self.expected, name, self.errors.first).statistics(STATISTICS).items()
        }

    def latency(self, name: str, statistic: str) -> Likely:
        """Mean or percentile of one of `LATENCIES`, seconds: over requests; of `itl` over the gaps between tokens."""
        runs = (self.expected, self.base, self.quick, self.slow)
        value, base, low, high = (_figures(run, name, self.errors.first).statistic(statistic) for run in runs)
        own = 1.0 if name == "ttft" else 0.0
        if name == "e2e":
            first = _figures(self.expected, "ttft", self.errors.first).statistic(statistic)
            own = min(first / max(value, 1e-12), 1.0)
        down, up = (float(np.log(max(end, 1e-12) / max(base, 1e-12))) for end in (low, high))
        return _widened(value, (down, up), Z90 * self.errors.first_log_sd * own)

    def output_tokens_per_s(self) -> Likely:
        """Output tokens over the whole run, from its first arrival to its last answer, of requests that were served."""
        value, base, low, high = (_throughput(run.served) for run in (self.expected, self.base, self.slow, self.quick))
        return Likely(value=value, low=value * low / base, high=value * high / base)

    def attainment(self, *, ttft_s: float | None, tpot_s: float | None, e2e_s: float | None) -> Likely:
        """Share of requests that keep all limits at once; None is no limit."""

        limits = (ttft_s, tpot_s, e2e_s)
        first, own = self.errors.first, float(np.exp(Z90 * self.errors.first_log_sd))
        value, base, low, high = (
            _kept(run, moved, limits).statistic("mean")
            for run, moved in (
                (self.expected, first), (self.base, first), (self.slow, first * own), (self.quick, first / own),
            )
        )  # fmt: skip
        return Likely(value=value, low=max(value + low - base, 0.0), high=min(value + high - base, 1.0))

    def sampling_error(self, name: str, statistic: str) -> float | None:
        """Half the 80 % interval that sampling a log leaves open of `latency`, seconds; None: nothing was sampled."""
        found, sample = _figures(self.expected, name, self.errors.first), self.expected.sample
        if sample is None or found.window is None or found.weights is None:
            return None
        return sample.error(found.window, found.weights, found.values, statistic)

    def attainment_sampling_error(
        self, *, ttft_s: float | None, tpot_s: float | None, e2e_s: float | None
    ) -> float | None:
        """The same of `attainment`, as a share."""
        found = _kept(self.expected, self.errors.first, (ttft_s, tpot_s, e2e_s))
        sample = self.expected.sample
        if sample is None or found.window is None or found.weights is None:
            return None
        return sample.error(found.window, found.weights, found.values, "mean")


def forecast(model: _Model, errors: StepErrors, serve: Callable[[_Model], Simulated]) -> Forecast:
    """Simulate a plan three times; `serve` serves the same requests by whatever model it is given."""
    expected = serve(model.paced(errors.pace))
    return with_ends(model, errors, serve, expected=expected, base=expected)


def with_ends(
    model: _Model, errors: StepErrors, serve: Callable[[_Model], Simulated], *, expected: Simulated, base: Simulated
) -> Forecast:
    """What a plan that was simulated at its expected pace makes of the requests of `base` at both ends of its range."""
    if not errors.pace_log_sd:
        return Forecast(expected=expected, quick=base, slow=base, errors=errors, base=base)
    paces = (errors.pace * float(np.exp(z * errors.pace_log_sd)) for z in (-Z90, Z90))
    quick, slow = (serve(model.paced(pace)) for pace in paces)
    return Forecast(expected=expected, quick=quick, slow=slow, errors=errors, base=base)


def _throughput(served: Served) -> float:
    through = np.isfinite(served.finish_s)
    if not through.any():
        return float("nan")
    took_s = served.finish_s[through].max() - served.requests.arrival_s.min()
    return float(served.requests.output[through].sum() / took_s)


def _latency(served: Served, name: str, first: float) -> Floats:
    """One latency of every request, seconds; TPOT of a request of one token is 0."""
    if name == "tpot":
        return served.tpot_s
    moved = served.ttft_s * first
    return moved if name == "ttft" else served.e2e_s + (moved - served.ttft_s)


def _figures(run: Simulated, name: str, first: float) -> Figures:
    """One latency of whatever has it, seconds."""
    if name == "itl":
        lengths, counts, ends_s = run.gaps.pieces()
        if run.sample is None:
            return Figures(values=lengths, weights=counts)
        window = run.sample.window_at(ends_s)
        kept = window >= 0
        window = window[kept]
        return Figures(values=lengths[kept], weights=counts[kept] * run.sample.weight[window], window=window)
    found = _of_requests(run, _latency(run.served, name, first))
    return found.where(run.served.requests.output > 1) if name == "tpot" else found


def _kept(run: Simulated, first: float, limits_s: tuple[float | None, ...]) -> Figures:
    """1 for every request that keeps the limits on `REQUEST_LATENCIES`, 0 for the others; None is no limit."""
    good = np.isfinite(run.served.finish_s)
    for name, limit in zip(REQUEST_LATENCIES, limits_s, strict=True):
        if limit is not None:
            good = good & (_latency(run.served, name, first) <= limit)
    return _of_requests(run, good.astype(np.float64))


def _of_requests(run: Simulated, values: Floats) -> Figures:
    """A figure of every request, with what it stands for."""
    if run.sample is None or run.window is None:
        return Figures(values=values)
    return Figures(values=values, weights=run.sample.weight[run.window], window=run.window)


def _widened(value: float, ends: tuple[float, float], own: float) -> Likely:
    """Two independent errors of a logarithm: one by both ends that it makes, one by its half width."""
    down, up = (float(np.hypot(end, own)) for end in ends)
    return Likely(value=value, low=value * float(np.exp(-down)), high=value * float(np.exp(up)), first_log=own)
