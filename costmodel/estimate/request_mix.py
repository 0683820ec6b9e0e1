"""Traffic of several kinds of requests, each a point (prompt, output, share): one rule puts their estimates together.

Every plan is evaluated as if all requests were of one kind, point by point, and the estimates are combined:

- requests/s: harmonic mean by requests, `1 / X = sum(w_k / X_k)`: what a request of each kind takes adds up.
- TTFT and its parts: mean by requests, `sum(w_k ttft_k)`.
- TPOT: mean by output tokens, `sum(w_k (osl_k - 1) tpot_k) / sum(w_k (osl_k - 1))`.
- gauges (utilisation, sequences running, cache): mean by time, `t_k` proportional to `w_k / X_k`.

With these Little's law holds for the mixture as it does for each kind: requests in flight are
`X (ttft + (mean osl - 1) tpot)`. Kinds share the KV cache: room is counted in sequences of the lengths that are in
flight, to which a request counts as long as it stays, in proportion to its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.estimate.result import Estimate, throughputs
from costmodel.plan.columns import Floats
from costmodel.serving.load import Load
from costmodel.serving.requests import RequestKind

BY_REQUEST = ("ttft_s", "ttft_longest_s", "e2e_s", "kv_wait_s", "ttft_parts_s", "prefill_chunks")
BY_TIME = (
    "memory_util_frac",
    "gpu_util_frac",
    "compute_util_frac",
    "bandwidth_util_frac",
    "memory_bytes",
    "running_per_rank",
    "throughput_log_sd",
)


def with_shared_cache(load: Load, points: Sequence[RequestKind]) -> Load:
    """The load with the lengths that are in flight of the mixture, by which its cache is counted."""
    stay = np.array([p.weight * p.osl for p in points])
    return replace(
        load,
        kv_isl=np.array([float(np.array([p.isl for p in points]) @ stay / stay.sum())]),
        kv_osl=np.array([float(np.array([p.osl for p in points]) @ stay / stay.sum())]),
    )


def point_loads(load: Load, points: Sequence[RequestKind], rows: int) -> Load:
    """The load of each kind alone, with the cache of the mixture: shape `(len(points) * rows,)`, kind after kind."""
    return replace(
        with_shared_cache(load, points),
        isl=np.repeat(np.array([p.isl for p in points]), rows),
        osl=np.repeat(np.array([p.osl for p in points]), rows),
        prefix_hit_frac=np.tile(np.broadcast_to(load.prefix_hit_frac, rows), len(points)),
        concurrency=np.tile(np.broadcast_to(load.concurrency, rows), len(points)),
        batched_tokens=np.tile(np.broadcast_to(load.batched_tokens, rows), len(points)),
    )


def combined(spread: Estimate, points: Sequence[RequestKind]) -> Estimate:
    """One estimate of the mixture, per plan, by the rule above.

    Args:
        spread: of every plan under every kind alone, laid out as `point_loads` does.
        points: kinds of requests, weights summing to 1.
    """
    weight = np.array([p.weight for p in points])[:, None]
    isl, osl = (float(weight[:, 0] @ np.array([getattr(p, n) for p in points])) for n in ("isl", "osl"))
    outputs = weight * np.maximum(np.array([p.osl for p in points])[:, None] - 1.0, 0.0)

    def stacked(name: str) -> NDArray[Any]:
        """Shape `(points, plans)`, or `(points, rows, plans)` of a table."""
        values = getattr(spread, name)
        return np.moveaxis(values.reshape(*values.shape[:-1], len(points), -1), -2, 0)

    taken = weight / stacked("requests_per_s")
    rate = 1.0 / taken.sum(axis=0)
    time = taken * rate

    def error(name: str, values: str, shares: Floats) -> Floats:
        """Kinds err together: their errors add up."""
        amounts = shares * stacked(values)
        return np.asarray((amounts * stacked(name)).sum(axis=0) / np.maximum(amounts.sum(axis=0), 1e-300))

    stage_gpus = stacked("total_tokens_per_s")[0] / stacked("stage_tokens_per_s_per_gpu")[0]
    prefill = weight * stacked("prefill_passes_per_request")
    decode = weight * stacked("decode_passes_per_request")
    return Estimate(
        **{name: _mean(weight, stacked(name)) for name in BY_REQUEST},
        **{name: _mean(time, stacked(name)) for name in BY_TIME},
        **throughputs(rate, isl, osl, stage_gpus=stage_gpus),
        tpot_s=np.asarray((outputs * stacked("tpot_s")).sum(axis=0) / max(float(outputs.sum()), 1e-300)),
        gpus=stacked("gpus")[0],
        kv_capacity_sequences=stacked("kv_capacity_sequences")[0],
        kv_fits_longest=stacked("kv_fits_longest").min(axis=0),
        prefill_s=_mean_by(prefill, stacked("prefill_s")),
        decode_s=_mean_by(decode, stacked("decode_s")),
        prefill_passes_per_request=prefill.sum(axis=0),
        decode_passes_per_request=decode.sum(axis=0),
        bottleneck=_of_most(time, stacked("bottleneck")),
        binding=_of_most(time, stacked("binding")),
        ttft_log_sd=error("ttft_log_sd", "ttft_s", weight),
        tpot_log_sd=error("tpot_log_sd", "tpot_s", outputs),
    )


def _mean(shares: Floats, values: Floats) -> Floats:
    """Over points; values of shape `(points, plans)` or `(points, rows, plans)`, shares summing to 1."""
    return np.asarray((_across(shares, values) * values).sum(axis=0))


def _mean_by(amounts: Floats, values: Floats) -> Floats:
    """The same with amounts of any sum; 0 where there is none (no output to decode)."""
    return _mean(amounts / np.maximum(amounts.sum(axis=0), 1e-300), values)


def _across(shares: Floats, values: Floats) -> Floats:
    return shares[:, None, :] if values.ndim == 3 else shares


def _of_most(time: Floats, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The entry of the kind that takes most of the time."""
    most = (time + np.zeros(values.shape)).argmax(axis=0)
    return np.asarray(np.take_along_axis(values, most[None, :], axis=0)[0])
