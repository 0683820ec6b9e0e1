"""Percentiles that a benchmark reports, beside those that a simulation of the same run predicts."""

from __future__ import annotations

from autotune.engines import ENGINES
from autotune.validation.bench import BenchResult
from costmodel.calibration.profile import Profile
from costmodel.measured.load_runs import REPORTED, Lengths, LoadRun, predict_run
from costmodel.simulation.forecast import Likely

MOST_REQUESTS = 2_000
"""That are simulated of one run: enough for a 99th percentile."""
COMPARED = tuple(key for key in REPORTED if key[1] != "mean")
"""Latency and percentile; means are compared by formula."""


def predicted_percentiles(result: BenchResult, profile: Profile | None) -> list[tuple[str, Likely, float]]:
    """Name (`ttft_p99_s`), prediction and measurement of each percentile that a result has, seconds.

    Empty where it has none. All requests are simulated with the run's mean lengths: results do not say how theirs are
    spread.
    """
    measured = {key: value for key in COMPARED if (value := result.reported.latencies.get(key, 0.0)) > 0.0}
    if not measured:
        return []
    run, reported = result.run, result.reported
    forecast = predict_run(
        LoadRun(
            id=run.id,
            model=run.model,
            entry=run.entry,
            prompt=Lengths(mean=run.mean_isl, quantiles={}),
            output=Lengths(mean=run.mean_osl, quantiles={}),
            rate_per_s=reported.request_rate_per_s * result.share if reported.open_loop else None,
            arrival_cv=reported.arrival_cv,
            concurrency=None if reported.open_loop else max(round(run.concurrency), 1),
            requests=int(min(max(reported.completed * result.share, 1.0), MOST_REQUESTS)),
            shared_prefix_tokens=round(run.prefix_hit_frac * run.mean_isl),
            distinct_prompts=0,
            batched_tokens=int(run.batched_tokens),
            max_num_seqs=int(run.max_num_seqs),
            measured=measured,
        ),
        ENGINES[run.engine].policy,
        profile,
    )
    return [(f"{name}_{p}_s", forecast.latency(name, p), value) for (name, p), value in measured.items()]
