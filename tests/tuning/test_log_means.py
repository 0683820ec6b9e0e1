"""Limits on means under a log that is simulated: what its requests meet decides, alike in every command."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from autotune.scoring.best_knobs import score
from autotune.scoring.limits import LOAD_SERVED
from autotune.study import Study
from autotune.traffic.load import load_study
from autotune.tuning import TuneResult, tune

BUSY = (1.2, 1.5, 1.8, 2.0, 2.6, 4.0)
"""Requests per second in three minutes of a log that has 0.6 otherwise."""


@cache
def logged(busy_per_s: float, gpus: int = 2) -> Study:
    """A 70B model under a log of forty minutes, three of which are busy."""
    random = np.random.default_rng(7)
    times, now = [], 0.0
    while now < 2400.0:
        now += random.exponential(1.0 / (busy_per_s if 1200.0 <= now < 1380.0 else 0.6))
        times.append(now)
    rows = [f"{t:.3f},{random.integers(150, 2200)},{random.integers(100, 420)}" for t in times]
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "log.csv").write_text("\n".join(["timestamp,input_tokens,output_tokens", *rows]) + "\n")
        (folder / "study.toml").write_text(
            f"""engine = "vllm"
model = "llama-70b"
[cluster]
gpus = {gpus}
gpu = "h100_sxm"
[workload]
traffic = "log.csv"
[constraints]
ttft_ms = 1000
tpot_ms = 40
ttft_p95_ms = 20000
"""
        )
        return load_study(folder / "study.toml")


@cache
def answer(busy_per_s: float) -> TuneResult:
    """What `tune` says under such a log."""
    return tune(logged(busy_per_s))


@pytest.mark.parametrize("busy_per_s", BUSY)
def test_knobs_that_carry_the_fullest_bin_go_before_those_that_do_not(busy_per_s: float) -> None:
    """Of token budgets one that serves the fullest bin is taken where there is one, whatever latencies others seem to
    have at full seats.
    """
    study = logged(busy_per_s)
    (candidate,) = {
        p.candidate for p in answer(busy_per_s).ranked + answer(busy_per_s).infeasible if p.plan.count("ATP2")
    }
    budgets = study.search.max_num_batched_tokens
    each = [
        score(replace(study, search=replace(study.search, max_num_batched_tokens=(b,))), [candidate])[0]
        for b in budgets
    ]
    carrying = {p.knobs.max_num_batched_tokens for p in each if all(v.code != LOAD_SERVED for v in p.violations)}
    chosen = score(study, [candidate])[0].knobs.max_num_batched_tokens
    assert chosen in (carrying or set(budgets))
