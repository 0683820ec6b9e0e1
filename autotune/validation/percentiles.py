"""Percentiles that a benchmark reports, beside those that a simulation of the same run predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import exp, isfinite, log, sqrt

from autotune.engines import ENGINES
from autotune.validation.bench import BenchResult
from costmodel.calibration.profile import Profile
from costmodel.estimate.normal import Z90
from costmodel.measured.load_runs import REPORTED, Lengths, LoadRun, predict_run
from costmodel.measured.runs import Run
from costmodel.simulation.forecast import Forecast, Likely

MOST_REQUESTS = 100_000
"""That are simulated of one run: as many as it had, as what comes faster than it is served waits the longer the more
came before it."""
COMPARED = tuple(key for key in REPORTED if key[1] != "mean")
"""Latency and percentile; where there is none of them, means are compared by formula."""
MEANS = ("ttft", "tpot")
"""Latencies whose means are compared."""


LEAST_BEYOND = 10.0
"""Requests that lie beyond a percentile, at least, for it to say something of a run."""
_BEYOND_FRAC = {"mean": 1.0, "p50": 0.5, "p90": 0.1, "p95": 0.05, "p99": 0.01}


def predicted_latencies(
    result: BenchResult, profile: Profile | None, means_s: Mapping[str, float]
) -> list[tuple[str, Likely, float]]:
    """As `held_against`, of a run on one kind of replica."""
    return held_against(_simulated(result, profile), result, means_s) if is_simulated(result) else []


def is_simulated(result: BenchResult) -> bool:
    """Whether a result is held against a simulation: it has percentiles, or is an open loop."""
    return result.reported.open_loop or bool(measured_percentiles(result))


def held_against(
    forecast: Forecast, result: BenchResult, means_s: Mapping[str, float]
) -> list[tuple[str, Likely, float]]:
    """Name (`ttft_p99_s`), prediction and measurement of each percentile that a result has, seconds.

    Of an open loop the means (`ttft_s`) and the throughputs come first: what is served is what comes, up to a rate
    beyond which all depends on how long the run was, which the formula does not know. All requests are simulated with
    the run's mean lengths: results do not say how theirs are spread. In a closed loop requests of one length go through
    the servers in step, and wait for each other as those of a real benchmark seldom do: there the simulation says how
    figures lie about their mean, and `means_s` (by latency) what that is.
    """
    reported, rows = result.reported, []
    if reported.open_loop:
        measured = {"ttft": result.run.ttft_s, "tpot": result.run.tpot_s}
        rows = [(f"{name}_s", forecast.latency(name, "mean"), measured[name]) for name in MEANS]
        rows += _throughputs(forecast, result)
    for (name, p), value in measured_percentiles(result).items():
        found = forecast.latency(name, p)
        if not reported.open_loop and name in means_s:
            factor = means_s[name] / forecast.latency(name, "mean").value
            found = Likely(value=found.value * factor, low=found.low * factor, high=found.high * factor)
        rows.append((f"{name}_{p}_s", found, value))
    return rows


def _throughputs(forecast: Forecast, result: BenchResult) -> list[tuple[str, Likely, float]]:
    """Of an open loop, of the whole plan; gaps between arrivals that vary add to what is not known."""
    reported, driven = result.reported, forecast.output_tokens_per_s()
    spread = exp(Z90 * reported.arrival_cv / sqrt(max(reported.completed, 1.0)))
    rows = []
    for name, per_output in (
        ("output_tokens_per_s", 1.0),
        ("total_tokens_per_s", (reported.isl + reported.osl) / reported.osl),
    ):
        factor = result.share * per_output
        likely = Likely(
            value=driven.value * factor, low=driven.low * factor / spread, high=driven.high * factor * spread
        )
        rows.append((name, likely, float(getattr(result, name))))
    return rows


def run_by_percentiles(result: BenchResult) -> tuple[Run, int]:
    """The run of a result, its TTFT the mean that its percentiles say as well, and how many percentiles said so.

    Each statistic is held against the simulation's; the geometric mean of their ratios, on the simulation's mean, is
    the TTFT. A percentile counts if `LEAST_BEYOND` requests lie beyond it. TPOT stays as it is measured.
    """
    by = {
        s: value
        for (name, s), value in result.reported.latencies.items()
        if name == "ttft" and (s == "mean" or _BEYOND_FRAC[s] * result.reported.completed >= LEAST_BEYOND)
    }
    percentiles = len(by.keys() - {"mean"})
    if not percentiles:
        return result.run, 0
    forecast = _simulated(result, None)
    ratios = [value / forecast.latency("ttft", s).value for s, value in by.items()]
    ttft_s = forecast.latency("ttft", "mean").value * exp(sum(map(log, ratios)) / len(ratios))
    return (replace(result.run, ttft_s=ttft_s), percentiles) if isfinite(ttft_s) else (result.run, 0)


def measured_percentiles(result: BenchResult) -> dict[tuple[str, str], float]:
    """Latency and percentile -> what a result has of it, seconds."""
    return {key: value for key in COMPARED if (value := result.reported.latencies.get(key, 0.0)) > 0.0}


def _simulated(result: BenchResult, profile: Profile | None) -> Forecast:
    """The run of a result, request by request, on the replicas that were driven."""
    run, reported = result.run, result.reported
    driven = replace(run.entry, layout=replace(run.entry.layout, replicas=result.replicas))
    return predict_run(
        LoadRun(
            id=run.id,
            model=run.model,
            entry=driven,
            prompt=Lengths(mean=run.mean_isl, quantiles={}),
            output=Lengths(mean=run.mean_osl, quantiles={}),
            rate_per_s=reported.request_rate_per_s if reported.open_loop else None,
            arrival_cv=reported.arrival_cv,
            concurrency=None if reported.open_loop else max(round(run.concurrency / result.share), 1),
            requests=int(min(max(reported.completed, 1.0), MOST_REQUESTS)),
            shared_prefix_tokens=round(run.prefix_hit_frac * run.mean_isl),
            distinct_prompts=0,
            batched_tokens=int(run.batched_tokens),
            max_num_seqs=int(run.max_num_seqs),
            measured=measured_percentiles(result),
        ),
        ENGINES[run.engine].policy,
        profile,
    )
