"""Speed of the simulation: `python -m benchmarks.simulation`. CPU seconds of a day of requests, and of a search."""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path

import numpy as np

from autotune.simulation import Traffic, simulate_plan
from autotune.study import load_study
from autotune.tuning import tune
from costmodel.simulation.requests import Requests, arrivals

STUDIES = Path(__file__).parent.parent / "studies"
REQUESTS = 350_000
DAY_S = 86_400.0


def main() -> None:
    """Print every figure."""
    print(f"machine: {platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    study = load_study(STUDIES / "llama-70b-16xh100.toml")
    began = time.process_time()
    ranked = tune(study).ranked
    print(f"tune without percentiles: {time.process_time() - began:.2f} s")
    limited = load_study(STUDIES / "llama-70b-16xh100.toml", ("constraints.ttft_p95_ms=400",))
    began = time.process_time()
    found = tune(limited)
    print(f"tune with a limit on p95: {time.process_time() - began:.2f} s, {len(found.ranked)} plans ranked")
    day = _day(np.random.default_rng(5))
    for plan in [p for p in ranked if p.layout.pp == 1][:2]:
        began = time.process_time()
        done = simulate_plan(study, plan, day, with_range=False)
        spent = time.process_time() - began
        print(f"{plan.plan}: {REQUESTS:,} requests of a day in {spent:.2f} s, {done.preemptions} preemptions")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def _day(random: np.random.Generator) -> Traffic:
    """Poisson arrivals of one rate, with lengths of a broad spread."""
    rate = REQUESTS / DAY_S
    requests = Requests(
        arrival_s=arrivals(REQUESTS, rate, 1.0, random),
        prompt=random.integers(100, 3900, REQUESTS),
        cached=np.zeros(REQUESTS, dtype=np.int64),
        output=random.integers(20, 480, REQUESTS),
    )
    return Traffic(requests=requests, rate_per_s=rate, concurrency=None, counted_from=0, recorded=True)


if __name__ == "__main__":
    main()
