"""A prefill pool and a decode pool that serve together: rate matching, TTFT and TPOT, and the whole estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from costmodel.disaggregated.kv_transfer import TransferLink, exposed_s
from costmodel.disaggregated.pool_point import PoolColumns, PoolPoint
from costmodel.estimate.result import (
    MEMORY_KINDS,
    Estimate,
    PhaseCost,
    Service,
    build_estimate,
    spare_sd,
    table,
    throughputs,
)
from costmodel.plan.columns import Floats
from costmodel.serving.load import Load

CARRIED = 1.0 - 1e-9
"""Share of a rate from which on it counts as carried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairService(Service):
    """What a prefill pool and a decode pool do together. Arrays of one shape."""

    transfer_s: Floats
    """What of the transfer the first token waits for, its start not included."""

    @property
    def in_flight(self) -> Floats:
        """Requests over both pools, the transfer and the wait in front, by Little's law."""
        return self.requests_per_s * self.e2e_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """How much is asked of two pools together; None: as much as they can do."""

    offered_per_s: float | None = None
    """Requests that arrive per second."""
    most_in_flight: float | None = None
    """Requests in flight that are admitted at most."""
    in_flight: float | None = None
    """Requests that are in flight, whatever the pools admit: the rest waits in front of them."""


def pair_service(
    prefill: PoolColumns, decode: PoolColumns, load: Load, link: TransferLink, demand: Demand
) -> PairService:
    """Pools side by side, entry `i` with entry `i`.

    The slower pool sets the pace. Latencies are those at which the pools are full: where one of them is the faster,
    its requests take no longer than that. The uncertainty of throughput is the larger of the two pools'. Unless
    `demand.in_flight` is given, more of either pool's rate or less of its times never hurts.
    """
    able = np.minimum(prefill.requests_per_s, decode.requests_per_s)
    transfer = exposed_s(link, prefill.wire_s, decode.wire_s)
    first = prefill.latency_s + transfer + decode.entry_s
    inside = first + np.maximum(load.osl - 1.0, 0.0) * decode.latency_s
    outside = decode.slot_wait_s
    rate = able if demand.offered_per_s is None else np.minimum(able, demand.offered_per_s)
    limit = demand.most_in_flight if demand.in_flight is None else demand.in_flight
    if limit is not None:
        rate = np.minimum(rate, limit / (inside + outside))
    if demand.in_flight is not None:
        outside = np.maximum(demand.in_flight / able - inside, 0.0)
    pair = joined_service(prefill, decode, load, link, rate=rate, ttft_s=first + outside, wait_s=outside)
    if demand.offered_per_s is None:
        return pair
    spare = [spare_sd(pool.able_per_s, demand.offered_per_s, pool.rate_log_sd) for pool in (prefill, decode)]
    return replace(pair, spare_sd=np.where(rate >= CARRIED * demand.offered_per_s, np.minimum(*spare), np.inf))


def joined_service(  # noqa: PLR0913  # one for each thing that nothing else follows from
    prefill: PoolColumns,
    decode: PoolColumns,
    load: Load,
    link: TransferLink,
    *,
    rate: Floats,
    ttft_s: Floats,
    wait_s: Floats,
) -> PairService:
    """What pools do together at a rate, where TTFT, of which `wait_s` is the wait in front of the pools, is known."""
    gpus = prefill.gpus + decode.gpus
    transfer = exposed_s(link, prefill.wire_s, decode.wire_s)
    sent_s = transfer / link.handed_frac if link.longest_handed else 0.0
    longest = prefill.longest_extra_s + decode.longest_extra_s + sent_s - transfer
    return PairService(
        ttft_s=ttft_s,
        ttft_longest_s=ttft_s + longest,
        tpot_s=decode.latency_s,
        e2e_s=ttft_s + np.maximum(load.osl - 1.0, 0.0) * decode.latency_s,
        kv_wait_s=wait_s,
        **throughputs(rate, load.isl, load.osl, stage_gpus=prefill.stage_gpus + decode.stage_gpus),
        gpus=gpus,
        memory_util_frac=np.maximum(prefill.memory_util_frac, decode.memory_util_frac),
        kv_fits_longest=np.minimum(prefill.kv_fits_longest, decode.kv_fits_longest),
        gpu_util_frac=np.asarray(rate * (prefill.busy_s + decode.busy_s) / gpus),
        ttft_log_sd=prefill.log_sd,
        tpot_log_sd=decode.log_sd,
        throughput_log_sd=np.maximum(prefill.rate_log_sd, decode.rate_log_sd),
        spare_sd=np.full_like(ttft_s, np.inf),
        transfer_s=transfer,
    )


def pair_estimate(prefill: PoolPoint, decode: PoolPoint, pair: PairService) -> Estimate:
    """The estimate of pairs of pools: entry `i` of every argument belongs to pair `i`. No residual is left to add.

    Memory is that of the fuller pool's GPUs; `kv_capacity_sequences` and `running_per_rank` are the decode pool's;
    shares of time and of peaks are means over all GPUs.
    """
    first, second, size = prefill.columns, decode.columns, pair.gpus.shape[0]
    rate, gpus = pair.requests_per_s, pair.gpus
    math_s, hbm_s = first.math_s + second.math_s, first.hbm_s + second.hbm_s
    held = [table(pool.memory.by_kind(pool.kv_bytes), MEMORY_KINDS, size) for pool in (prefill, decode)]
    return build_estimate(
        pair,
        prefill=PhaseCost(group_s=prefill.group_s, passes_per_request=prefill.passes_per_request),
        decode=PhaseCost(group_s=decode.group_s, passes_per_request=decode.passes_per_request),
        resources_s={
            "compute": math_s / gpus,
            "memory bandwidth": hbm_s / gpus,
            "host": prefill.passes.host_s * prefill.chunks + decode.passes.host_s * decode.passes_per_request,
        },
        waits_for_kv=np.zeros(size, dtype=bool),  # what waits in front of the pools waits for their latency limits
        memory_bytes=np.where(first.memory_util_frac >= second.memory_util_frac, *held),
        ttft_parts_s=_ttft_parts(prefill, decode, pair),
        compute_util_frac=np.asarray(rate * math_s / gpus),
        bandwidth_util_frac=np.asarray(rate * hbm_s / gpus),
        kv_capacity_sequences=second.kv_capacity_sequences,
        running_per_rank=second.sequences_per_rank,
        prefill_chunks=prefill.chunks,
    )


def _ttft_parts(prefill: PoolPoint, decode: PoolPoint, pair: PairService) -> dict[str, Floats]:
    """Parts of TTFT by name: what both pools add, the transfer with the hand-over, and the wait in front."""
    here = sum(decode.parts_s.values(), np.zeros(1))
    between = pair.transfer_s + decode.columns.entry_s - here
    parts = {**prefill.parts_s, "kv_transfer": between, "kv_wait": pair.kv_wait_s}
    return parts | {name: parts.get(name, 0.0) + seconds for name, seconds in decode.parts_s.items()}
