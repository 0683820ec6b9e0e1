"""A prefill pool and a decode pool that serve together: rate matching, TTFT and TPOT, and the whole estimate."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from costmodel.disaggregated.kv_transfer import TransferLink, exposed_s
from costmodel.disaggregated.pools import PoolColumns, PoolPoint
from costmodel.estimate.result import COMMUNICATION, MEMORY_KINDS, RESOURCES, TTFT_PARTS, Estimate, Service
from costmodel.plan.columns import Floats
from costmodel.serving.closed_loop import Load
from costmodel.step.operators import GROUPS

BUSY_FOREVER_S = 1e12
"""Work of a request that keeps any pool busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairService(Service):
    """What a prefill pool and a decode pool do together. Arrays of one shape."""

    transfer_s: Floats
    """What of the transfer the first token waits for, its start not included."""
    in_flight: Floats
    """By Little's law, over both pools, the transfer and the wait in front."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """How much is asked of two pools together; None: as much as they can do."""

    offered_per_s: float | None = None
    """Requests that arrive per second."""
    most_in_flight: float | None = None
    """Requests in flight that are admitted at most."""
    in_flight: float | None = None
    """Requests that are in flight, whatever the pools admit: the rest waits in front of them."""


def ideal_pool(gpus: float, count: int) -> PoolColumns:
    """`count` times a pool of so many GPUs that does everything at once: nothing joined with it does better."""
    full = {f.name: np.zeros(count) for f in fields(PoolColumns)}
    endless = np.full(count, np.inf)
    return PoolColumns(
        **{
            **full,
            "requests_per_s": endless,
            "gpus": np.full(count, gpus),
            "busy_s": np.full(count, BUSY_FOREVER_S),
            "kv_fits_longest": endless,
            "kv_capacity_sequences": endless,
        }
    )


def joined(prefill: PoolColumns, decode: PoolColumns, load: Load, link: TransferLink, demand: Demand) -> PairService:
    """Pools side by side, entry `i` with entry `i`.

    The slower pool sets the pace. Latencies are those at which the pools are full: where one of them is the faster,
    its requests take no longer than that. The uncertainty of throughput is the larger of the two pools'. Unless
    `demand.in_flight` is given, more of either pool's rate or less of its times never hurts.
    """
    able = np.minimum(prefill.requests_per_s, decode.requests_per_s)
    transfer = exposed_s(link, prefill.wire_s, decode.wire_s)
    first = prefill.latency_s + transfer + decode.entry_s
    inside = first + np.maximum(load.osl - 1.0, 0.0) * decode.latency_s
    rate = able if demand.offered_per_s is None else np.minimum(able, demand.offered_per_s)
    outside: Floats = np.zeros(1)
    limit = demand.most_in_flight if demand.in_flight is None else demand.in_flight
    if limit is not None:
        rate = np.minimum(rate, limit / inside)
    if demand.in_flight is not None:
        outside = np.maximum(demand.in_flight / able - inside, 0.0)
    ttft = first + outside
    tokens, outputs = rate * (load.isl + load.osl), rate * load.osl
    gpus = prefill.gpus + decode.gpus
    return PairService(
        requests_per_s=rate,
        ttft_s=ttft,
        ttft_longest_s=ttft + prefill.longest_extra_s,
        tpot_s=decode.latency_s + 0.0 * rate,
        transfer_s=transfer,
        in_flight=rate * (inside + outside),
        kv_wait_s=outside + 0.0 * rate,
        total_tokens_per_s=tokens,
        output_tokens_per_s=outputs,
        stage_tokens_per_s_per_gpu=tokens / (prefill.stage_gpus + decode.stage_gpus),
        gpus=gpus,
        memory_util_frac=np.maximum(prefill.memory_util_frac, decode.memory_util_frac),
        kv_fits_longest=np.minimum(prefill.kv_fits_longest, decode.kv_fits_longest),
        gpu_util_frac=np.minimum(rate * (prefill.busy_s + decode.busy_s) / gpus, 1.0),
        ttft_log_sd=prefill.log_sd + 0.0 * rate,
        tpot_log_sd=decode.log_sd + 0.0 * rate,
        throughput_log_sd=np.maximum(prefill.log_sd, decode.log_sd),
    )


def joined_estimate(prefill: PoolPoint, decode: PoolPoint, pair: PairService) -> Estimate:
    """The estimate of pairs of pools: entry `i` of every argument belongs to pair `i`. No residual is left to add.

    Memory is that of the fuller pool's GPUs; `kv_capacity_sequences` and `running_per_rank` are the decode pool's;
    shares of time and of peaks are means over all GPUs.
    """
    first, second, size = prefill.columns, decode.columns, pair.ttft_s.shape[0]
    prompt, step = _groups(prefill, size), _groups(decode, size)
    per_request = prompt * prefill.passes_per_request + step * decode.passes_per_request
    rate, gpus = pair.requests_per_s, pair.gpus
    math_s, hbm_s = first.math_s + second.math_s, first.hbm_s + second.hbm_s
    links = np.asarray(sum(per_request[GROUPS.index(g)] for g in COMMUNICATION))
    host_s = prefill.passes.host_s * prefill.chunks + decode.passes.host_s * decode.passes_per_request
    resources = np.stack([np.broadcast_to(x, (size,)) for x in (math_s / gpus, hbm_s / gpus, links, host_s)])
    fuller = first.memory_util_frac >= second.memory_util_frac
    parts = {**prefill.parts_s, **decode.parts_s, "kv_transfer": pair.transfer_s + decode_start_s(decode)}
    parts["kv_wait"] = pair.kv_wait_s
    zero = np.zeros(size)
    return Estimate(
        ttft_s=pair.ttft_s,
        ttft_longest_s=pair.ttft_longest_s,
        tpot_s=pair.tpot_s,
        requests_per_s=rate,
        total_tokens_per_s=pair.total_tokens_per_s,
        output_tokens_per_s=pair.output_tokens_per_s,
        gpus=gpus,
        memory_util_frac=pair.memory_util_frac,
        gpu_util_frac=pair.gpu_util_frac,
        compute_util_frac=np.minimum(rate * math_s / gpus, 1.0),
        bandwidth_util_frac=np.minimum(rate * hbm_s / gpus, 1.0),
        stage_tokens_per_s_per_gpu=pair.stage_tokens_per_s_per_gpu,
        kv_capacity_sequences=second.kv_capacity_sequences,
        kv_fits_longest=pair.kv_fits_longest,
        memory_bytes=np.where(fuller, _memory(prefill, size), _memory(decode, size)),
        prefill_s=prompt,
        decode_s=step,
        prefill_passes_per_request=prefill.passes_per_request + zero,
        decode_passes_per_request=decode.passes_per_request + zero,
        ttft_parts_s=np.stack([np.broadcast_to(parts.get(name, zero), (size,)) for name in TTFT_PARTS]),
        bottleneck=per_request.argmax(axis=0),
        binding=np.minimum(resources.argmax(axis=0), len(RESOURCES) - 1),
        running_per_rank=second.sequences_per_rank,
        prefill_chunks=prefill.chunks + zero,
        kv_wait_s=pair.kv_wait_s,
        ttft_log_sd=pair.ttft_log_sd,
        tpot_log_sd=pair.tpot_log_sd,
        throughput_log_sd=pair.throughput_log_sd,
    )


def decode_start_s(decode: PoolPoint) -> Floats:
    """Seconds before the first byte of a transfer moves, which TTFT includes."""
    return decode.columns.entry_s - decode.parts_s["running_step"]


def _groups(point: PoolPoint, size: int) -> Floats:
    groups = point.passes.step.group_s
    return np.stack([np.broadcast_to(groups.get(name, np.zeros(1)), (size,)) for name in GROUPS])


def _memory(point: PoolPoint, size: int) -> Floats:
    memory = point.memory
    kinds = {
        **memory.weights_bytes,
        "kv_cache": point.kv_bytes,
        "activations": memory.activation_bytes,
        "buffers": memory.buffer_bytes,
        "reserve": memory.reserve_bytes,
    }
    return np.stack([np.broadcast_to(kinds.get(name, np.zeros(1)), (size,)) for name in MEMORY_KINDS])
