"""What an estimate holds, and how it is put together from memory and steady state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from costmodel.estimate.error_model import Corrected
from costmodel.plan.columns import Floats, Ints, LayoutColumns
from costmodel.serving.closed_loop import Load, SteadyState
from costmodel.step.memory import Memory
from costmodel.step.operators import GROUPS

COMMUNICATION = ("tp_all_reduce", "ep_exchange", "pp_send")
PACED = {"paced": True}
"""Marks a field that goes with the requests that are served: a rate, or a share of time."""
RESOURCES = ("compute", "memory bandwidth", "links", "host", "KV capacity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What plans do for their users, and what their limits look at. Arrays have shape `(num_plans,)`."""

    ttft_s: Floats
    """Mean time to first token, arrival to first token, queueing included."""
    ttft_longest_s: Floats
    """The same for a request with the longest prompt."""
    tpot_s: Floats
    """Mean (end to end - TTFT) / (output tokens - 1)."""
    kv_wait_s: Floats
    """Part of TTFT: the wait for KV room, or in front of pools that admit no more."""
    requests_per_s: Floats = field(metadata=PACED)
    total_tokens_per_s: Floats = field(metadata=PACED)
    """Prompt and output tokens of all replicas."""
    output_tokens_per_s: Floats = field(metadata=PACED)
    stage_tokens_per_s_per_gpu: Floats = field(metadata=PACED)
    """Tokens through one GPU of a stage: throughput of a replica over the GPUs of one stage."""
    gpus: Floats
    memory_util_frac: Floats
    """Memory in use over the GPU's total, on the fullest GPU."""
    kv_fits_longest: Floats
    """KV room over the bytes of one longest sequence; below 1 the plan cannot serve it."""
    gpu_util_frac: Floats = field(metadata=PACED)
    """Share of time in which the busiest stage's GPUs run kernels (what nvidia-smi calls utilisation)."""
    ttft_log_sd: Floats
    """Standard deviation of log(measured / estimate); 0 where only the formulas were evaluated."""
    tpot_log_sd: Floats
    throughput_log_sd: Floats

    @property
    def total_tokens_per_s_per_gpu(self) -> Floats:
        """Over all GPUs of the plan."""
        return self.total_tokens_per_s / self.gpus

    @property
    def output_tokens_per_s_per_gpu(self) -> Floats:
        """Over all GPUs of the plan."""
        return self.output_tokens_per_s / self.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Service):
    """What plans cost. Arrays have shape `(num_plans,)`, or `(rows, num_plans)` where a table is named."""

    compute_util_frac: Floats = field(metadata=PACED)
    bandwidth_util_frac: Floats = field(metadata=PACED)
    kv_capacity_sequences: Floats
    """Sequences of mean length for which a replica has KV room."""
    memory_bytes: Floats
    """Table by `MEMORY_KINDS`."""
    prefill_s: Floats
    """Table by operator group: one prompt's chunk through the model."""
    decode_s: Floats
    """Table by operator group: one decode step through the model."""
    prefill_passes_per_request: Floats
    """Times `prefill_s` that one request keeps a stage's GPUs busy with its prompt."""
    decode_passes_per_request: Floats
    """Times `decode_s` that it keeps them busy with its output: steps over the sequences that share each."""
    ttft_parts_s: Floats
    """Table by `TTFT_PARTS`."""
    bottleneck: Ints
    """Operator group with the largest share of GPU time; index into `GROUPS`."""
    binding: Ints
    """Index into `RESOURCES`."""
    running_per_rank: Floats
    prefill_chunks: Floats


WEIGHT_KINDS = (
    "attention",
    "dense_ffn",
    "router",
    "experts",
    "shared_experts",
    "norms",
    "embedding",
    "lm_head",
)
MEMORY_KINDS = (
    *WEIGHT_KINDS,
    "kv_cache",
    "activations",
    "buffers",
    "reserve",
)
TTFT_PARTS = ("front_end", "own_prefill", "running_step", "queue", "kv_wait", "kv_transfer")


def at_rate(estimate: Estimate, offered_per_s: float) -> Estimate:
    """The estimate where no more than `offered_per_s` requests arrive: rates and shares of time are theirs.

    Latencies stay those of the requests in flight, a whole number per replica that carries at least as much.
    """
    pace = np.minimum(offered_per_s / np.maximum(estimate.requests_per_s, 1e-300), 1.0)
    paced = (f.name for f in fields(Estimate) if f.metadata == PACED)
    return replace(estimate, **{name: getattr(estimate, name) * pace for name in paced})


def _table(rows: Sequence[Floats], size: int) -> Floats:
    out = np.empty((len(rows), size))
    for i, row in enumerate(rows):
        out[i] = row
    return out


def collect(layout: LayoutColumns, load: Load, memory: Memory, state: SteadyState, corrected: Corrected) -> Estimate:
    """Every figure of every plan, shared ones spread out to `(num_plans,)`."""
    size = layout.pp.shape[0]
    zero = np.zeros(1)
    prefill = _table([state.prefill_loaded.step.group_s.get(g, zero) for g in GROUPS], size)
    decode = _table([state.decode.step.group_s.get(g, zero) for g in GROUPS], size)
    per_request = prefill * state.prefill_passes_per_request + decode * state.decode_passes_per_request
    links = np.asarray(sum(per_request[GROUPS.index(g)] for g in COMMUNICATION))
    resources = _table([state.math_s, state.hbm_s, links, state.host_s], size)
    binding = np.where(
        state.ttft_parts_s["kv_wait"] > state.ttft_s * 0.5,
        RESOURCES.index("KV capacity"),
        resources.argmax(axis=0),
    )
    kv = memory.kv_bytes(np.minimum(state.running_per_rank, load.max_num_seqs))
    used = memory.fixed_bytes + kv
    kinds = {
        **memory.weights_bytes,
        "kv_cache": kv,
        "activations": memory.activation_bytes,
        "buffers": memory.buffer_bytes,
        "reserve": memory.reserve_bytes,
    }
    total = corrected.requests_per_s * (load.isl + load.osl)
    pace = corrected.requests_per_s / state.requests_per_s
    parts = {p: s * corrected.ttft_factor for p, s in state.ttft_parts_s.items()} | {"kv_wait": corrected.kv_wait_s}
    ttft = np.asarray(sum(parts.values()))

    def full(values: Floats) -> Floats:
        return np.asarray(values + np.zeros(size))

    return Estimate(
        ttft_s=full(ttft),
        ttft_longest_s=full(ttft + (state.ttft_longest_s - state.ttft_s) * corrected.ttft_factor),
        tpot_s=full(corrected.tpot_s),
        requests_per_s=full(corrected.requests_per_s),
        total_tokens_per_s=full(total),
        output_tokens_per_s=full(corrected.requests_per_s * load.osl),
        gpus=full(layout.replicas * layout.pp * layout.width),
        memory_util_frac=full(used / memory.hbm_bytes),
        gpu_util_frac=full(np.minimum(state.gpu_busy_frac, 1.0)),
        compute_util_frac=full(state.compute_util_frac * pace),
        bandwidth_util_frac=full(np.minimum(state.bandwidth_util_frac * pace, 1.0)),
        stage_tokens_per_s_per_gpu=full(total / (layout.replicas * layout.width)),
        kv_capacity_sequences=full(
            np.floor(np.maximum(memory.kv_room_bytes, 0.0) / memory.kv_bytes_per_sequence) * layout.attn_dp
        ),
        kv_fits_longest=full(memory.kv_room_bytes / memory.kv_bytes_longest),
        memory_bytes=_table([kinds.get(k, zero) for k in MEMORY_KINDS], size),
        prefill_s=prefill,
        decode_s=decode,
        prefill_passes_per_request=full(state.prefill_passes_per_request),
        decode_passes_per_request=full(state.decode_passes_per_request),
        ttft_parts_s=_table([parts.get(p, zero) for p in TTFT_PARTS], size),
        bottleneck=per_request.argmax(axis=0),
        binding=binding,
        running_per_rank=full(state.running_per_rank),
        prefill_chunks=full(state.prefill_chunks),
        kv_wait_s=full(corrected.kv_wait_s),
        ttft_log_sd=full(corrected.ttft_log_sd),
        tpot_log_sd=full(corrected.tpot_log_sd),
        throughput_log_sd=full(corrected.throughput_log_sd),
    )
