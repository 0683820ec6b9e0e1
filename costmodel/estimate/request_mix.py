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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.estimate.result import Estimate, throughputs
from costmodel.plan.columns import Floats, Ints
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """Kinds of requests as columns, shape `(kinds, 1)`; where plans are asked for different ones, `(kinds, plans)`."""

    isl: Floats
    osl: Floats
    weight: Floats
    """Shares of all requests, summing to 1 over kinds."""

    @classmethod
    def of(cls, mixes: Sequence[Sequence[RequestKind]]) -> Kinds:
        """A column for each mix; all have as many kinds."""
        table = np.array([[(k.isl, k.osl, k.weight) for k in mix] for mix in mixes]).T
        return cls(isl=table[0], osl=table[1], weight=table[2])

    def take(self, index: Ints) -> Kinds:
        """The columns at these places."""
        return Kinds(isl=self.isl[:, index], osl=self.osl[:, index], weight=self.weight[:, index])

    def mean(self, values: Floats, weight: Floats) -> Floats:
        """Mean over kinds, shape `(1,)` or `(plans,)`."""
        return np.asarray((values * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300))


def with_shared_cache(load: Load, kinds: Kinds) -> Load:
    """The load with the lengths that are in flight of the mixture, by which its cache is counted."""
    stay = kinds.weight * kinds.osl
    return replace(load, kv_isl=kinds.mean(kinds.isl, stay), kv_osl=kinds.mean(kinds.osl, stay))


_OF_ENGINES = ("max_num_seqs", "step_tokens", "accepted_tokens", "draft_frac")
"""Fields of a load that are the same for all plans, or each plan's own."""


def point_loads(load: Load, kinds: Kinds, rows: int) -> Load:
    """The load of each kind alone, with the cache of the mixture: shape `(kinds * rows,)`, kind after kind."""
    count = len(kinds.isl)

    def spread(values: Floats) -> Floats:
        return np.broadcast_to(values, (count, rows)).ravel()

    shared = with_shared_cache(load, kinds)
    names = ("isl", "osl")
    tiled = ("kv_isl", "kv_osl", "prefix_hit_frac", "concurrency", "batched_tokens", *_OF_ENGINES)
    return replace(
        shared,
        **{name: spread(getattr(kinds, name)) for name in names},
        **{name: spread(getattr(shared, name)) for name in tiled},
    )


def combined(spread: Estimate, kinds: Kinds) -> Estimate:
    """One estimate of the mixture, per plan, by the rule above.

    Args:
        spread: of every plan under every kind alone, laid out as `point_loads` does.
        kinds: of requests.
    """
    weight, outputs = kinds.weight, kinds.weight * np.maximum(kinds.osl - 1.0, 0.0)
    isl, osl = kinds.mean(kinds.isl, weight), kinds.mean(kinds.osl, weight)

    def stacked(name: str) -> NDArray[Any]:
        """Shape `(kinds, plans)`, or `(kinds, rows, plans)` of a table."""
        values = getattr(spread, name)
        return np.moveaxis(values.reshape(*values.shape[:-1], len(weight), -1), -2, 0)

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
        tpot_s=kinds.mean(stacked("tpot_s"), outputs),
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
        spare_sd=stacked("spare_sd")[0],
    )


def _mean(shares: Floats, values: Floats) -> Floats:
    """Over kinds; values of shape `(kinds, plans)` or `(kinds, rows, plans)`, shares summing to 1."""
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
