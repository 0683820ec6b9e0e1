"""Speed of the simulation: `python -m benchmarks.simulation`. CPU seconds of a day of requests, and of a search."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from autotune.simulation.simulate_plan import PlanSimulation, simulate_plan, study_traffic
from autotune.study import Study, load_study
from autotune.traffic.load import load_study as load_logged
from autotune.tuning import PlanResult, tune
from autotune.tuning.knob_choices import search_traffic
from costmodel.simulation.requests import Requests, arrivals

STUDIES = Path(__file__).parent.parent / "studies"
REQUESTS = 350_000
DAY_S = 86_400.0
LEADING = 20
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


def main() -> None:
    """Print every figure."""
    print(f"machine: {platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    study = load_study(STUDIES / "llama-70b-16xh100.toml")
    began = time.process_time()
    tune(study)
    print(f"tune without percentiles: {time.process_time() - began:.2f} s")
    limited = load_study(STUDIES / "llama-70b-16xh100.toml", ("constraints.ttft_p95_ms=400",))
    began = time.process_time()
    found = tune(limited)
    print(f"tune with a limit on p95: {time.process_time() - began:.2f} s, {len(found.ranked)} plans ranked")
    day, wide = _day(np.random.default_rng(5)), ("constraints.ttft_ms=10000", "constraints.tpot_ms=500")
    with TemporaryDirectory() as folder:
        log = Path(folder) / "day.csv"
        np.savetxt(
            log, np.column_stack([day.arrival_s, day.prompt, day.output]), "%.6f,%d,%d", header=HEADER, comments=""
        )
        began = time.process_time()
        study = load_logged(STUDIES / "llama-70b-16xh100.toml", wide, traffic=str(log))
        print(f"a log of {REQUESTS:,} requests read in {time.process_time() - began:.2f} s")
    began = time.process_time()
    limited = replace(study, constraints=replace(study.constraints, ttft_p95_s=0.6))
    found = tune(limited)
    print(f"tune with a limit on p95 over it: {time.process_time() - began:.2f} s, {len(found.ranked)} plans ranked")
    leading = _leading(study)
    wholes = {}
    for plan in [p for p in leading if p.layout.pp == 1][:2]:
        began = time.process_time()
        wholes[plan.plan] = done = simulate_plan(study, plan, study_traffic(study), with_range=False)
        spent = time.process_time() - began
        print(f"{plan.plan}: {REQUESTS:,} requests of a day in {spent:.2f} s, {done.preemptions} preemptions")
    _sampled(study, leading, wholes)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def _leading(study: Study) -> list[PlanResult]:
    """The plans of three engines that decode the log quickest: all of them different."""
    found: dict[str, PlanResult] = {}
    for engine in ("vllm", "sglang", "trtllm"):
        for plan in tune(replace(study, engine=engine)).ranked:
            found.setdefault(plan.key, plan)
    return sorted(found.values(), key=lambda plan: plan.metrics["tpot_s"])[:LEADING]


def _sampled(study: Study, plans: Sequence[PlanResult], wholes: dict[str, PlanSimulation]) -> None:
    """Leading plans over windows of the day, with likely ranges; figures beside those of the whole day."""
    began = time.process_time()
    traffic = search_traffic(study, plans)
    found = [simulate_plan(study, plan, traffic.for_plan(plan.metrics["e2e_s"])) for plan in plans]
    spent = time.process_time() - began
    began = time.process_time()
    for plan in plans:
        simulate_plan(study, plan, traffic.for_plan(plan.metrics["e2e_s"]), with_range=False)
    alone = time.process_time() - began
    said = "whole" if traffic.sample is None else traffic.sample.words()
    print(f"simulated: {', '.join(plan.plan for plan in plans)}")
    print(f"{len(plans)} plans over the day in {alone:.2f} s, and with likely ranges in {spent:.2f} s: {said}")
    for plan, one in zip(plans, found, strict=True):
        whole = wholes.pop(plan.plan, None)
        if whole is None:
            continue
        for name, statistic in (("ttft", "mean"), ("ttft", "p95"), ("ttft", "p99"), ("tpot", "p95"), ("itl", "p99")):
            ours, theirs = (1e3 * x.forecast.latency(name, statistic).value for x in (one, whole))
            error = 1e3 * (one.forecast.sampling_error(name, statistic) or 0.0)
            print(f"  {plan.plan} {name} {statistic}: {ours:.1f} ± {error:.1f} ms sampled, {theirs:.1f} ms whole")


def _day(random: np.random.Generator) -> Requests:
    """Poisson arrivals at a third of the mean rate by night and five thirds by day, with lengths of a broad spread."""
    even = arrivals(REQUESTS, 1.0, 1.0, random) / REQUESTS
    hours = np.linspace(0.0, 1.0, 1441)
    come = hours - np.sin(2.0 * np.pi * hours) / (3.0 * np.pi)  # share of the day's requests by share of the day
    return Requests(
        arrival_s=DAY_S * np.interp(even, come, hours),
        prompt=random.integers(100, 3900, REQUESTS),
        cached=np.zeros(REQUESTS, dtype=np.int64),
        output=random.integers(20, 480, REQUESTS),
    )


if __name__ == "__main__":
    main()
