"""Measured serving runs, and predicting all of them with one vectorised call.

A run is a closed loop of `concurrency` requests over one server, as benchmarks of InferenceMAX's kind make them, or has
that many in flight on average of those that arrive at a rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from costmodel.calibration.profile import Profile
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.estimate.result import Estimate
from costmodel.plan.columns import Floats
from costmodel.serving.load import Load

BATCHED_TOKENS = 8192.0
"""Token budget of a step that the measured engines start with on such GPUs."""
MAX_NUM_SEQS = 1024.0
MEMORY_FRACTION = 0.9
BENCHMARK_WAVES = 10.0
"""Requests that each slot of a closed-loop benchmark sends; all slots begin at once."""
TIGHT_MEMORY_FRACTION = 0.97
"""Of servers that run although their weights leave no room at the usual fraction: it was raised for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """What was measured, of whatever deployment; latencies in seconds, NaN where the file has none."""

    id: str
    gpu: str
    engine: str
    engine_version: str
    model: str
    precision: str
    isl: float
    osl: float
    concurrency: float
    same_lengths: bool
    """Every request had just these lengths; where the file does not say, they are taken to vary."""
    mean_isl: float
    mean_osl: float
    ttft_s: float
    tpot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(MeasuredRun):
    """A measured run of a server, or of alike servers that share the load."""

    entry: PlanEntry
    batched_tokens: float = BATCHED_TOKENS
    """Token budget of a step, per attention-DP rank."""
    max_num_seqs: float = MAX_NUM_SEQS
    """Sequences that run at once, per attention-DP rank."""
    prefix_hit_frac: float = 0.0
    """Share of prompt tokens found in the prefix cache."""
    poll_steps: float = 0.0
    """Steps between the scheduler's looks at new requests; 0: every step."""
    hold_steps: float = 0.0
    """Steps for which a first waiting prompt waits for others; 0: none."""
    staggered: bool = False
    """Requests of the same lengths do not begin together, so that they do not end together either."""
    open_loop: bool = False
    """Requests arrive whatever the server does: they neither begin together nor keep in step."""
    by_recipe: bool = False
    """Whether some of the server's settings are those of the benchmark that such lengths are known from."""

    @property
    def gpus(self) -> int:
        """GPUs of the server."""
        return self.entry.layout.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBatch:
    """Runs, prepared for evaluation."""

    runs: tuple[Run, ...]
    batch: PlanBatch
    load: Load
    memory_fraction: Floats

    def evaluate(self) -> Estimate:
        """Predict every run with one vectorised call."""
        return self.batch.evaluate(self.load, longest_prompt=self.load.isl, memory_fraction=self.memory_fraction)


def prepare_runs(runs: Sequence[Run], profile: Profile | None = None) -> RunBatch:
    """Columns of measured runs; `profile` is a user's own calibration."""
    batch = PlanBatch.of([r.entry for r in runs], profile=profile)
    load = Load(
        isl=np.array([r.mean_isl for r in runs]),
        osl=np.array([r.mean_osl for r in runs]),
        prefix_hit_frac=np.array([r.prefix_hit_frac for r in runs]),
        concurrency=np.array([r.concurrency for r in runs]),
        batched_tokens=np.array([r.batched_tokens for r in runs]),
        max_num_seqs=np.array([r.max_num_seqs for r in runs]),
        same_lengths=np.array([float(r.same_lengths and not (r.staggered or r.open_loop)) for r in runs]),
        waves=np.array([0.0 if r.open_loop else BENCHMARK_WAVES for r in runs]),
        poll_steps=np.array([r.poll_steps for r in runs]),
        hold_steps=np.array([r.hold_steps for r in runs]),
    )
    usual = np.full(len(runs), MEMORY_FRACTION)
    formulas = replace(batch, residual=None)
    fits = formulas.evaluate(load, longest_prompt=load.isl, memory_fraction=usual).kv_fits_longest >= 1.0
    return RunBatch(
        runs=tuple(runs),
        batch=batch,
        load=load,
        memory_fraction=np.where(fits, usual, TIGHT_MEMORY_FRACTION),
    )
