"""Measured runs of which percentiles are known, under arrivals that do not wait for answers: predicted by simulation.

Requests are drawn as the run's file describes them: lengths with its quantiles, arrivals with its rate and variation,
prefixes that repeat. What it does not describe is listed in `LoadRun.assumptions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np

from costmodel.calibration.profile import Profile
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.measured.runs import MEMORY_FRACTION, TIGHT_MEMORY_FRACTION
from costmodel.plan.columns import Ints
from costmodel.serving.load import Load
from costmodel.simulation.forecast import Forecast, StepErrors, forecast
from costmodel.simulation.policies import Policy
from costmodel.simulation.policies.base import BLOCK
from costmodel.simulation.requests import Requests, arrivals, quantile_lengths
from costmodel.simulation.server import server_model
from costmodel.simulation.simulate import ServerModel, Simulated, simulate, simulate_closed

REPORTED = (
    *((name, statistic) for name in ("ttft", "e2e") for statistic in ("mean", "p50", "p90", "p95", "p99")),
    ("tpot", "mean"),
)
"""What such files report and predictions hold: latency and statistic."""
SEED = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths of prompts or outputs, tokens."""

    mean: float
    quantiles: Mapping[float, float]
    """Share -> length; fewer than two: every request has the mean length."""

    def drawn(self, count: int, random: np.random.Generator) -> Ints:
        """Lengths of `count` requests."""
        if len(self.quantiles) < 2:
            return np.full(count, max(round(self.mean), 1), dtype=np.int64)
        return quantile_lengths(dict(self.quantiles), self.mean, count, random)

    def at_least_median(self) -> Lengths:
        """The same without its shorter half; the median must be among the quantiles."""
        median = self.quantiles[0.5]
        return Lengths(mean=median, quantiles={share: v for share, v in self.quantiles.items() if share >= 0.5})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRun:
    """One measured run."""

    id: str
    model: str
    entry: PlanEntry
    prompt: Lengths
    output: Lengths
    rate_per_s: float | None
    """Of arrivals; None: a closed loop."""
    arrival_cv: float
    """Coefficient of variation of the gaps between arrivals: 0 for equal ones, 1 for Poisson arrivals."""
    concurrency: int | None
    """Requests in flight in a closed loop."""
    requests: int
    shared_prefix_tokens: int
    """Tokens with which every prompt begins."""
    distinct_prompts: int
    """After so many prompts they repeat; 0: they never do."""
    batched_tokens: int
    max_num_seqs: int
    measured: Mapping[tuple[str, str], float]
    """Seconds by latency and statistic, of `REPORTED`; what the file does not have is not in it."""
    assumptions: tuple[str, ...] = ()

    def drawn(self) -> tuple[Ints, Ints, Ints]:
        """Prompt tokens, those found in the prefix cache, and output tokens of every request."""
        random = np.random.default_rng(SEED)
        prompt, output = self.prompt.drawn(self.requests, random), self.output.drawn(self.requests, random)
        number = np.arange(self.requests)
        shared = np.where(number > 0, self.shared_prefix_tokens, 0)
        again = (number >= self.distinct_prompts) if self.distinct_prompts else np.zeros(self.requests, dtype=bool)
        found = np.minimum(np.where(again, prompt - 1, shared), prompt - 1)
        return prompt, found // BLOCK * BLOCK, output

    def serve(self, model: ServerModel) -> Simulated:
        """The run's requests, served by a plan."""
        prompt, cached, output = self.drawn()
        if self.rate_per_s is None:
            return simulate_closed(model, prompt, cached, output, concurrency=self.concurrency or 1)
        arrival_s = arrivals(self.requests, self.rate_per_s, self.arrival_cv, np.random.default_rng(SEED + 1))
        return simulate(model, Requests(arrival_s=arrival_s, prompt=prompt, cached=cached, output=output))


def predict_run(run: LoadRun, policy: Policy, profile: Profile | None = None) -> Forecast:
    """Simulate one run; `profile` is a user's own calibration."""
    batch = PlanBatch.of([run.entry], profile=profile)
    load = _load(run, 1.0)
    fraction = np.array([MEMORY_FRACTION])
    if batch.memory(load, longest_prompt=load.isl, memory_fraction=fraction).kv_fits_longest[0] < 1.0:
        fraction = np.array([TIGHT_MEMORY_FRACTION])
    model = server_model(batch, load, policy=policy, longest_prompt=load.isl, memory_fraction=fraction)
    open_loop, load = run.rate_per_s is not None, _load(run, _in_flight(run, model))
    errors = StepErrors.of(batch, load, open_loop=open_loop, longest_prompt=load.isl, memory_fraction=fraction)
    return forecast(model, errors, run.serve)


def _load(run: LoadRun, concurrency: float) -> Load:
    return Load(
        isl=np.array([run.prompt.mean]),
        osl=np.array([run.output.mean]),
        prefix_hit_frac=np.zeros(1),
        concurrency=np.array([concurrency]),
        batched_tokens=np.array([float(run.batched_tokens)]),
        max_num_seqs=np.array([float(run.max_num_seqs)]),
    )


def _in_flight(run: LoadRun, model: ServerModel) -> float:
    """Requests that are served at once, which the calibration's errors depend on: by Little's law where they arrive."""
    if run.rate_per_s is None:
        return float(run.concurrency or 1)
    seats = float(model.limits.max_num_seqs * model.table.ranks * model.replicas)
    served = run.serve(model).served
    through = np.isfinite(served.finish_s)
    mean_s = float(served.e2e_s[through].mean()) if through.any() else 0.0
    return min(max(run.rate_per_s * mean_s, 1.0), seats) if isfinite(mean_s) else seats
