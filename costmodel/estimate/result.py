"""What an estimate holds, and how it is put together from memory and steady state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from costmodel.estimate.error_model import Correction, Latencies
from costmodel.estimate.normal import Z90
from costmodel.plan.columns import Floats, Ints, LayoutColumns
from costmodel.serving.load import Load
from costmodel.serving.steady_state import SteadyState
from costmodel.step.memory import Memory
from costmodel.step.operators import GROUPS

Bools = NDArray[np.bool_]
COMMUNICATION = ("tp_all_reduce", "ep_exchange", "pp_send")
PACED = {"paced": True}
"""Marks a field that goes with the requests that are served: a rate, or a share of time."""
CARRIED_WITHIN = 1.0 + 1e-6
"""What comes over what is served, at most, where all of it is taken as served: rates are found by bisection."""
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
    e2e_s: Floats
    """Mean time from arrival to the last token: TTFT + (output tokens - 1) TPOT."""
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
    spare_sd: Floats
    """By how many standard deviations of its error what is served at most exceeds what comes (`spare_sd`); infinite
    where requests come as others end, or come unserved."""

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


def spare_sd(most_per_s: Floats, offered_per_s: Floats | float, log_sd: Floats) -> Floats:
    """Standard deviations of its log by which what is served at most exceeds what comes; infinite without an error.

    Arrays of one shape, or that broadcast to it.
    """
    spare = np.log(np.maximum(most_per_s / offered_per_s, 1.0))
    return np.divide(spare, log_sd, where=log_sd > 0.0, out=np.full(np.broadcast(spare, log_sd).shape, np.inf))


def served_range(service: Service, spare_log_sd: Floats, offered_per_s: float | None) -> tuple[Floats, Floats]:
    """p10 and p90 of what is served over its estimate, shape `(num_plans,)`.

    At a rate no more is served than comes, and less only where the most that could be is less.

    Args:
        service: of plans.
        spare_log_sd: the error in whose standard deviations `Service.spare_sd` is, same shape.
        offered_per_s: requests per second that come to each plan; None: they come as others end.
    """
    spread = np.exp(Z90 * service.throughput_log_sd)
    if offered_per_s is None:
        return 1.0 / spread, spread
    room = offered_per_s / np.maximum(service.requests_per_s, 1e-300)
    least = np.exp(np.minimum(service.spare_sd - Z90, 0.0) * spare_log_sd)
    carried = room <= CARRIED_WITHIN
    return np.where(carried, least, 1.0 / spread), np.where(carried, 1.0, np.minimum(spread, room))


def at_rate(estimate: Estimate, offered_per_s: Floats | float) -> Estimate:
    """The estimate where no more than `offered_per_s` requests arrive: rates and shares of time are theirs.

    Latencies stay those of the requests in flight, a whole number per replica that carries at least as much.
    """
    pace = np.minimum(offered_per_s / np.maximum(estimate.requests_per_s, 1e-300), 1.0)
    paced = (f.name for f in fields(Estimate) if f.metadata == PACED)
    return replace(estimate, **{name: getattr(estimate, name) * pace for name in paced})


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCost:
    """What a phase costs, per plan."""

    group_s: Mapping[str, Floats]
    """Operator group -> seconds of one pass: a prompt's chunk, or a decode step."""
    passes_per_request: Floats
    """Times that one request keeps a stage's GPUs busy for as long."""


def throughputs(
    requests_per_s: Floats, isl: Floats | float, osl: Floats | float, *, stage_gpus: Floats
) -> dict[str, Floats]:
    """The rates of a `Service`, of requests of such mean lengths; `stage_gpus` are those of one stage, all replicas."""
    tokens = requests_per_s * (isl + osl)
    return {
        "requests_per_s": requests_per_s,
        "total_tokens_per_s": tokens,
        "output_tokens_per_s": requests_per_s * osl,
        "stage_tokens_per_s_per_gpu": tokens / stage_gpus,
    }


def build_estimate(  # noqa: PLR0913  # one for each thing that nothing else follows from
    service: Service,
    *,
    prefill: PhaseCost,
    decode: PhaseCost,
    resources_s: Mapping[str, Floats],
    waits_for_kv: Bools,
    memory_bytes: Mapping[str, Floats] | Floats,
    ttft_parts_s: Mapping[str, Floats],
    **columns: Floats,
) -> Estimate:
    """The estimate of plans, what they share spread out to `(num_plans,)`.

    Args:
        service: of which `gpus` has shape `(num_plans,)`.
        prefill: of one prompt.
        decode: of one step.
        resources_s: seconds of a request on `RESOURCES` but the links, which follow from the phases, and KV capacity.
        waits_for_kv: whether KV capacity is what binds.
        memory_bytes: by kind of `MEMORY_KINDS`, or as their table.
        ttft_parts_s: by part of `TTFT_PARTS`.
        columns: the other fields of an `Estimate` that are columns.
    """
    size = service.gpus.shape[0]
    tables = {name: table(phase.group_s, GROUPS, size) for name, phase in (("prefill", prefill), ("decode", decode))}
    per_request = tables["prefill"] * prefill.passes_per_request + tables["decode"] * decode.passes_per_request
    links = np.asarray(sum(per_request[GROUPS.index(g)] for g in COMMUNICATION))
    resources = table({**resources_s, "links": links}, RESOURCES[:-1], size)
    columns |= {f.name: getattr(service, f.name) for f in fields(Service)}
    columns["prefill_passes_per_request"] = prefill.passes_per_request
    columns["decode_passes_per_request"] = decode.passes_per_request
    return Estimate(
        **{name: np.asarray(values + np.zeros(size)) for name, values in columns.items()},
        memory_bytes=table(memory_bytes, MEMORY_KINDS, size) if isinstance(memory_bytes, Mapping) else memory_bytes,
        prefill_s=tables["prefill"],
        decode_s=tables["decode"],
        ttft_parts_s=table(ttft_parts_s, TTFT_PARTS, size),
        bottleneck=per_request.argmax(axis=0),
        binding=np.where(waits_for_kv, RESOURCES.index("KV capacity"), resources.argmax(axis=0)),
    )


def table(rows: Mapping[str, Floats], names: Sequence[str], size: int) -> Floats:
    """Rows in the order of `names`, 0 where there is none, shape `(len(names), size)`."""
    out = np.zeros((len(names), size))
    for i, name in enumerate(names):
        if name in rows:
            out[i] = rows[name]
    return out


def steady_estimate(
    layout: LayoutColumns, load: Load, memory: Memory, state: SteadyState, correction: Correction
) -> Estimate:
    """The estimate of plans in the state that they settle into, the residuals in it."""
    wait_s = state.ttft_parts_s["kv_wait"] + state.backlog_s
    formula = Latencies(
        first_s=state.ttft_s - wait_s,
        wait_s=wait_s,
        longest_extra_s=state.ttft_longest_s - state.ttft_s,
        tpot_s=state.tpot_s,
        outputs=np.maximum(load.osl - 1.0, 0.0),
    )
    _, throughput_factor = formula.moved(correction.ttft_factor, correction.tpot_factor)
    # residuals that are fitted elsewhere may ask for more than arithmetic or memory can do: their peaks bound them
    slower = np.maximum(throughput_factor * np.maximum(state.compute_util_frac, state.bandwidth_util_frac), 1.0)
    correction = replace(
        correction, ttft_factor=correction.ttft_factor * slower, tpot_factor=correction.tpot_factor * slower
    )
    moved, throughput_factor = formula.moved(correction.ttft_factor, correction.tpot_factor)
    parts = {name: s * correction.ttft_factor for name, s in state.ttft_parts_s.items()}
    parts["queue"] = parts["queue"] + state.backlog_s * (1.0 / throughput_factor - correction.ttft_factor)
    parts["kv_wait"] = state.ttft_parts_s["kv_wait"] / throughput_factor
    ttft = np.asarray(sum(parts.values()))
    rate = state.requests_per_s * throughput_factor
    kv = memory.kv_bytes(np.minimum(state.running_per_rank, load.max_num_seqs))
    pace = rate / state.requests_per_s
    service = Service(
        ttft_s=ttft,
        ttft_longest_s=ttft + moved.longest_extra_s,
        tpot_s=moved.tpot_s,
        e2e_s=ttft + moved.outputs * moved.tpot_s,
        kv_wait_s=parts["kv_wait"],
        **throughputs(rate, load.isl, load.osl, stage_gpus=layout.replicas * layout.width),
        gpus=layout.replicas * layout.pp * layout.width,
        memory_util_frac=(memory.fixed_bytes + kv) / memory.hbm_bytes,
        kv_fits_longest=memory.kv_fits_longest,
        gpu_util_frac=state.gpu_busy_frac,
        ttft_log_sd=correction.ttft_log_sd,
        tpot_log_sd=correction.tpot_log_sd,
        throughput_log_sd=correction.throughput_log_sd(moved.first_share),
        spare_sd=np.array([np.inf]),
    )
    return build_estimate(
        service,
        prefill=PhaseCost(
            group_s=state.prefill_loaded.step.group_s, passes_per_request=state.prefill_passes_per_request
        ),
        decode=PhaseCost(group_s=state.decode.step.group_s, passes_per_request=state.decode_passes_per_request),
        resources_s={"compute": state.math_s, "memory bandwidth": state.hbm_s, "host": state.host_s},
        waits_for_kv=state.ttft_parts_s["kv_wait"] > state.ttft_s * 0.5,
        memory_bytes=memory.by_kind(kv),
        ttft_parts_s=parts,
        compute_util_frac=state.compute_util_frac * pace,
        bandwidth_util_frac=state.bandwidth_util_frac * pace,
        kv_capacity_sequences=memory.sequences_per_rank * layout.attn_dp,
        running_per_rank=state.running_per_rank,
        prefill_chunks=state.prefill_chunks,
    )
