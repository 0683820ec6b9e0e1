"""Measured runs of disaggregated deployments, and predicting all of them with one vectorised call.

A run is a closed loop of requests over a pool of prefill workers and a pool of decode workers, as benchmarks of
InferenceMAX's kind make them: all requests that may be in flight are sent at once, ten times as many in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from costmodel.disaggregated.closed_loop import ClosedLoop, settle
from costmodel.disaggregated.decode_pool import DecodePool, decode_pool
from costmodel.disaggregated.kv_transfer import TransferLink
from costmodel.disaggregated.pool_calibration import PoolCalibration
from costmodel.disaggregated.prefill_pool import PrefillPool, prefill_pool
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.measured.runs import BENCHMARK_WAVES, MEMORY_FRACTION, TIGHT_MEMORY_FRACTION, MeasuredRun
from costmodel.plan.columns import Floats
from costmodel.serving.load import Load

SPREAD_CV2 = 0.2**2 / 12.0 / 0.9**2
"""Squared coefficient of variation of prompt lengths drawn from [0.8, 1.0] of the nominal one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRun(MeasuredRun):
    """A measured run of a pool that prefills and one that decodes."""

    prefill: PlanEntry
    """Workers of the pool are the replicas of its layout."""
    decode: PlanEntry
    prefill_batched_tokens: float
    """Most prompt tokens in a prefill pass, per attention-DP rank."""
    prefill_max_num_seqs: float
    """Most prompts in a prefill pass, per attention-DP rank; infinite where it is not known."""
    decode_max_num_seqs: float
    """Most sequences that decode at once, per attention-DP rank; infinite where it is not known."""
    ttft_note: str = ""
    """What the file says TTFT is made of where that is not prefill alone."""

    @property
    def gpus(self) -> int:
        """GPUs of both pools."""
        return self.prefill.layout.gpus + self.decode.layout.gpus

    @property
    def deployment(self) -> tuple[object, ...]:
        """What runs share that differ in the requests in flight alone."""
        limits = (self.prefill_batched_tokens, self.prefill_max_num_seqs, self.decode_max_num_seqs)
        layouts = (self.prefill.layout, self.decode.layout)
        return (
            self.gpu,
            self.engine,
            self.engine_version,
            self.model,
            self.precision,
            self.isl,
            self.osl,
            layouts,
            limits,
        )


def predict_pool_runs(runs: Sequence[PoolRun], calibration: PoolCalibration | None = None) -> ClosedLoop:
    """Every run where its pools settle, its benchmark's opening burst included; entry `i` belongs to run `i`."""
    prefill, decode = run_pools(runs, calibration)
    concurrency = np.array([run.concurrency for run in runs])
    return settle(prefill, decode, concurrency, waves=BENCHMARK_WAVES)


def run_pools(
    runs: Sequence[PoolRun], calibration: PoolCalibration | None = None, *, formulas: bool = False
) -> tuple[PrefillPool, DecodePool]:
    """The pools of all runs, prepared for any load; `formulas` leaves the calibration of pools out."""
    link = _link(runs)
    length_cv2 = 0.0 if all(run.same_lengths for run in runs) else SPREAD_CV2
    first, second = _batch([r.prefill for r in runs], formulas), _batch([r.decode for r in runs], formulas)
    load = _load(runs, [r.prefill_batched_tokens for r in runs], [r.prefill_max_num_seqs for r in runs])
    longest = np.array([run.isl for run in runs])
    usual = np.full(len(runs), MEMORY_FRACTION)
    prefill = prefill_pool(
        first, load, link, longest_prompt=longest, memory_fraction=usual, length_cv2=length_cv2, calibration=calibration
    )
    seats = [r.decode_max_num_seqs for r in runs]
    load = _load(runs, [max(min(s, DECODE_TOKENS), 1.0) for s in seats], seats)
    fits = second.memory(load, longest_prompt=longest, memory_fraction=usual).kv_fits_longest >= 1.0
    fraction = np.where(fits, usual, TIGHT_MEMORY_FRACTION)
    decode = decode_pool(second, load, link, longest_prompt=longest, memory_fraction=fraction, calibration=calibration)
    return prefill, decode


DECODE_TOKENS = 1024.0
"""Token budget of a decode worker where its sequences do not say more: what its activations need room for."""


def _batch(entries: Sequence[PlanEntry], formulas: bool) -> PlanBatch:
    batch = PlanBatch.of(entries)
    return replace(batch, residual=None) if formulas else batch


def _link(runs: Sequence[PoolRun]) -> TransferLink:
    """Scale-up links where every deployment lies in one domain; the bytes take a hundredth of the hand-over or less."""
    inside = all(run.decode.cluster.domain_gpus >= run.gpus for run in runs)
    return TransferLink(same_domain=inside)


def _load(runs: Sequence[PoolRun], batched_tokens: Sequence[float], max_num_seqs: Sequence[float]) -> Load:
    return Load(
        isl=np.array([run.mean_isl for run in runs]),
        osl=np.array([run.mean_osl for run in runs]),
        prefix_hit_frac=np.zeros(1),
        concurrency=np.array([run.concurrency for run in runs]),
        batched_tokens=np.array(batched_tokens),
        max_num_seqs=np.array(max_num_seqs),
    )


def throughput_per_gpu(runs: Sequence[PoolRun], ttft_s: Floats, tpot_s: Floats) -> Floats:
    """Output tokens/s per GPU of both pools of a closed loop (Little's law), shape `(num_runs,)`."""
    osl = np.array([run.mean_osl for run in runs])
    flight, gpus = np.array([run.concurrency for run in runs]), np.array([float(run.gpus) for run in runs])
    return np.asarray(flight * osl / (ttft_s + np.maximum(osl - 1.0, 0.0) * tpot_s) / gpus)
