"""Estimates of whole plans: the cost model's entrance.

`PlanBatch.of` gathers what does not change (architecture, hardware, calibration, placement); `evaluate` adds
a load and the runtime knobs. One plan is a batch of one; a batch may mix models, GPUs and engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from costmodel.arch import Arch
from costmodel.calibration.load import Cell, CellColumns, cell_columns, load_calibration
from costmodel.calibration.profile import Profile
from costmodel.calibration.residual import REACH_SD, Residual, TargetResidual, features, residual_columns
from costmodel.columns import ArchColumns, Floats, Ints, LayoutColumns
from costmodel.hardware import Cluster
from costmodel.layout import Layout
from costmodel.memory import Memory, plan_memory
from costmodel.operators import GROUPS, Machine, StepTime, step_time
from costmodel.placement import Placement
from costmodel.precision import PrecisionColumns
from costmodel.routing import popularity_cv2
from costmodel.serving import Load, SteadyState, steady_state
from costmodel.shards import rank_matrices
from costmodel.stages import StageTable
from costmodel.work import StepWork

CHUNK_PLANS = 2048
"""Plans evaluated at once: small enough that the columns of a formula stay in the processor's cache."""
COMMUNICATION = ("tp_all_reduce", "ep_exchange", "pp_send")
RESOURCES = ("compute", "memory bandwidth", "links", "host", "KV capacity")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """One plan to be estimated."""

    arch: Arch
    cluster: Cluster
    engine: str
    layout: Layout
    kv_dtype: str | None = None
    """Dtype of the cache; None is the checkpoint's."""
    engine_version: str | None = None
    """Version of the engine; None or one that was not measured: the engine's typical behaviour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What plans cost. Arrays have shape `(num_plans,)`, or `(rows, num_plans)` where a table is named."""

    ttft_s: Floats
    """Mean time to first token, arrival to first token, queueing included."""
    ttft_longest_s: Floats
    """The same for a request with the longest prompt."""
    tpot_s: Floats
    """Mean (end to end - TTFT) / (output tokens - 1)."""
    requests_per_s: Floats
    total_tokens_per_s: Floats
    """Prompt and output tokens of all replicas."""
    output_tokens_per_s: Floats
    gpus: Floats
    memory_util_frac: Floats
    """Memory in use over the GPU's total, on the fullest GPU."""
    gpu_util_frac: Floats
    """Share of time in which the busiest stage's GPUs run kernels (what nvidia-smi calls utilisation)."""
    compute_util_frac: Floats
    bandwidth_util_frac: Floats
    stage_tokens_per_s_per_gpu: Floats
    """Tokens through one GPU of a stage: throughput of a replica over the GPUs of one stage."""
    kv_capacity_sequences: Floats
    """Sequences of mean length for which a replica has KV room."""
    kv_fits_longest: Floats
    """KV room over the bytes of one longest sequence; below 1 the plan cannot serve it."""
    memory_bytes: Floats
    """Table by `MEMORY_KINDS`."""
    prefill_s: Floats
    """Table by operator group: one prompt's chunk through the model."""
    decode_s: Floats
    """Table by operator group: one decode step through the model."""
    ttft_parts_s: Floats
    """Table by `TTFT_PARTS`."""
    bottleneck: Ints
    """Operator group with the largest share of GPU time; index into `GROUPS`."""
    binding: Ints
    """Index into `RESOURCES`."""
    running_per_rank: Floats
    prefill_chunks: Floats
    kv_wait_s: Floats
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


MEMORY_KINDS = (
    "attention",
    "dense_ffn",
    "router",
    "experts",
    "shared_experts",
    "norms",
    "embedding",
    "lm_head",
    "kv_cache",
    "activations",
    "buffers",
    "reserve",
)
TTFT_PARTS = ("front_end", "own_prefill", "running_step", "queue", "kv_wait")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBatch:
    """Plans, prepared for evaluation under any load."""

    size: int
    cells: tuple[Cell, ...]
    cell_index: Ints
    arch: ArchColumns
    layout: LayoutColumns
    precision: PrecisionColumns
    columns: CellColumns
    placement: Placement
    stages: StageTable
    popularity_cv2: Floats
    fraction_is_of_free: Floats
    residual: Residual | None
    """What the calibration adds to the formulas; None evaluates the formulas alone."""

    @classmethod
    def of(cls, entries: Sequence[PlanEntry], *, expert_skew: float = 0.0, profile: Profile | None = None) -> PlanBatch:
        """Prepare plans; `profile` is a user's own calibration. Raises `ValueError` for an empty sequence."""
        if not entries:
            raise ValueError("a batch must hold at least one plan, got none")
        keys: dict[tuple[object, ...], int] = {}
        firsts: list[PlanEntry] = []
        index = np.empty(len(entries), dtype=np.int64)
        for i, e in enumerate(entries):
            key = (id(e.arch), id(e.cluster), e.engine, e.kv_dtype, e.engine_version)
            if key not in keys:
                keys[key] = len(firsts)
                firsts.append(e)
            index[i] = keys[key]
        cells = [(e.arch, e.cluster, e.engine, e.kv_dtype or e.arch.kv_dtype) for e in firsts]
        calibrations = [load_calibration(e.cluster.gpu.generation, e.engine, e.engine_version) for e in firsts]
        columns = cell_columns(cells, calibrations)
        residual = residual_columns(
            [
                (e.arch, e.cluster.gpu.name, k.generation, e.engine, e.engine_version)
                for e, k in zip(firsts, calibrations, strict=True)
            ],
            None if profile is None else profile.values(),
        )
        archs = ArchColumns.of([e.arch for e in firsts])
        precision = PrecisionColumns.of([e.arch for e in firsts], [e.kv_dtype or e.arch.kv_dtype for e in firsts])
        of_free = np.array([float(e.engine == "trtllm") for e in firsts])
        layout = LayoutColumns.of([e.layout for e in entries], [e.engine for e in entries])
        if len(firsts) > 1:
            archs, precision, of_free = archs.take(index), precision.take(index), of_free[index]
            columns = CellColumns(**{f.name: getattr(columns, f.name).take(index) for f in fields(CellColumns)})
        return cls(
            size=len(entries),
            cells=tuple(cells),
            cell_index=index,
            arch=archs,
            layout=layout,
            precision=precision,
            columns=columns,
            placement=Placement.of(archs, layout, columns.cluster),
            stages=StageTable.of([e.arch for e in entries], [e.layout for e in entries]),
            popularity_cv2=_popularity(entries, expert_skew),
            fraction_is_of_free=of_free,
            residual=residual if len(firsts) == 1 else residual.take(index),
        )

    def take(self, index: Ints) -> PlanBatch:
        """Gather plans, with repetition: one entry per knob setting."""
        return self._map(lambda c: c if c.shape_is_shared and self.size > 1 else c.take(index), index, len(index))

    def _map(self, gather: Any, index: Any, size: int) -> PlanBatch:
        columns = CellColumns(**{f.name: gather(getattr(self.columns, f.name)) for f in fields(CellColumns)})
        return PlanBatch(
            size=size,
            cells=self.cells,
            cell_index=self.cell_index[index],
            arch=gather(self.arch),
            layout=gather(self.layout),
            precision=gather(self.precision),
            columns=columns,
            placement=gather(self.placement),
            stages=self.stages.take(index),
            popularity_cv2=_pick(self.popularity_cv2, index),
            fraction_is_of_free=_pick(self.fraction_is_of_free, index),
            residual=None if self.residual is None else gather(self.residual),
        )

    def machine(self) -> Machine:
        """What every step of these plans runs on."""
        return Machine(
            arch=self.arch,
            layout=self.layout,
            precision=self.precision,
            placement=self.placement,
            links=self.columns.links,
            rates=self.columns.rates,
            matrices=rank_matrices(self.arch, self.layout),
            popularity_cv2=self.popularity_cv2,
        )

    def step(self, work: StepWork) -> StepTime:
        """Seconds of one step by operator group, from the formulas alone."""
        return step_time(self.machine(), work)

    def evaluate(self, load: Load, *, longest_prompt: Floats, memory_fraction: Floats) -> Estimate:
        """Estimate every plan under `load` (columns of shape `(size,)` or `(1,)`).

        `memory_fraction` is the engine's KV setting: of total memory (vLLM, SGLang) or of free (TensorRT-LLM).
        """
        parts = []
        for start in range(0, self.size, CHUNK_PLANS):
            part = slice(start, min(start + CHUNK_PLANS, self.size))
            piece = (
                self
                if self.size <= CHUNK_PLANS
                else self._map(lambda c, p=part: c.slice(p), part, part.stop - part.start)
            )
            parts.append(_evaluate(piece, load.slice(part), _pick(longest_prompt, part), _pick(memory_fraction, part)))
        if len(parts) == 1:
            return parts[0]
        return Estimate(
            **{f.name: np.concatenate([getattr(p, f.name) for p in parts], axis=-1) for f in fields(Estimate)}
        )


def _pick(values: Floats, index: Any) -> Floats:
    return values if values.shape[0] == 1 else values[index]


def _popularity(entries: Sequence[PlanEntry], skew: float) -> Floats:
    if skew == 0.0:
        return np.zeros(1)
    known: dict[tuple[int, int], float] = {}
    out = np.zeros(len(entries))
    for i, e in enumerate(entries):
        key = (e.arch.num_experts, e.layout.redundant_experts)
        if key not in known:
            known[key] = popularity_cv2(max(key[0], 1), skew, key[1])
        out[i] = known[key]
    return out


def _evaluate(batch: PlanBatch, load: Load, longest_prompt: Floats, memory_fraction: Floats) -> Estimate:
    layout, arch = batch.layout, batch.arch
    wanted = np.maximum(load.concurrency / layout.replicas, 1.0) / layout.attn_dp
    memory = plan_memory(
        arch=arch,
        layout=layout,
        precision=batch.precision,
        cluster=batch.columns.cluster,
        stages=batch.stages,
        batched_tokens=load.batched_tokens,
        sequences_per_rank=np.minimum(wanted, load.max_num_seqs),
        # TensorRT-LLM admits a request only with room for its whole output (GUARANTEED_NO_EVICT, its default)
        mean_tokens=load.isl + load.osl * np.where(batch.fraction_is_of_free > 0, 1.0, 0.5),
        longest_tokens=longest_prompt + load.osl,
        memory_fraction=memory_fraction,
        fraction_is_of_free=batch.fraction_is_of_free,
    )
    state = steady_state(
        batch.machine(),
        batch.stages,
        batch.columns.engine,
        load,
        memory,
        hbm_bytes_per_s=batch.columns.cluster.hbm_bytes_per_s,
        longest_prompt=longest_prompt,
    )
    return _collect(batch, load, memory, state, _corrected(batch, load, state))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Corrected:
    """The steady state with the calibration's residuals in it."""

    ttft_factor: Floats
    """Of all parts of TTFT but the wait for KV room."""
    kv_wait_s: Floats
    """Follows from throughput: the requests that wait are served at the pace of those that run."""
    tpot_s: Floats
    requests_per_s: Floats
    ttft_log_sd: Floats
    tpot_log_sd: Floats
    throughput_log_sd: Floats


TARGET_CORRELATION = 0.4
"""Of the TPOT and TTFT residuals of a run: rank correlation of the out-of-sample errors of the measured runs."""


def _corrected(batch: PlanBatch, load: Load, state: SteadyState) -> _Corrected:
    """Move TTFT and TPOT by the residuals' mean, and throughput with them: in a closed loop it follows (Little)."""
    if batch.residual is None:
        still, zero = np.ones(1), np.zeros(1)
        return _Corrected(
            ttft_factor=still,
            kv_wait_s=state.ttft_parts_s["kv_wait"],
            tpot_s=state.tpot_s,
            requests_per_s=state.requests_per_s,
            ttft_log_sd=zero,
            tpot_log_sd=zero,
            throughput_log_sd=zero,
        )
    layout = batch.layout
    phi, beyond = features(
        load.concurrency / layout.replicas,
        layout.width * layout.pp,
        load.isl,
        load.osl,
        (layout.moe_ep > 1.0).astype(np.float64),
    )
    ttft_factor, ttft_sd = _residual(batch.residual.ttft, phi, beyond, REACH_SD["ttft"])
    tpot_factor, tpot_sd = _residual(batch.residual.tpot, phi, beyond, REACH_SD["tpot"])
    outputs = np.maximum(load.osl - 1.0, 0.0)
    # a request that runs takes `total`; one that waits for KV room changes nothing for it, so that a residual
    # of TTFT must not scale the wait, or throughput would leave what the hardware can do
    kv_wait_s = state.ttft_parts_s["kv_wait"]
    before = state.ttft_s - kv_wait_s + outputs * state.tpot_s
    ttft_s, tpot_s = (state.ttft_s - kv_wait_s) * ttft_factor, state.tpot_s * tpot_factor
    total = ttft_s + outputs * tpot_s
    share = ttft_s / total
    first, rest = share * ttft_sd, (1.0 - share) * tpot_sd
    return _Corrected(
        ttft_factor=ttft_factor,
        kv_wait_s=kv_wait_s * (total / before),
        tpot_s=tpot_s,
        requests_per_s=state.requests_per_s * (before / total),
        ttft_log_sd=ttft_sd,
        tpot_log_sd=tpot_sd,
        throughput_log_sd=np.sqrt(first * first + rest * rest + 2.0 * TARGET_CORRELATION * first * rest),
    )


def _residual(target: TargetResidual, phi: Floats, beyond: Floats, reach_sd: float) -> tuple[Floats, Floats]:
    variance = target.shared_variance(phi) + target.own_variance(phi) + (reach_sd * beyond) ** 2
    return np.exp(target.mean_log(phi)), np.sqrt(variance)


def _table(rows: Sequence[Floats], size: int) -> Floats:
    out = np.empty((len(rows), size))
    for i, row in enumerate(rows):
        out[i] = row
    return out


def _collect(batch: PlanBatch, load: Load, memory: Memory, state: SteadyState, corrected: _Corrected) -> Estimate:
    layout, size = batch.layout, batch.size
    zero = np.zeros(1)
    prefill = _table([state.prefill.group_s.get(g, zero) for g in GROUPS], size)
    decode = _table([state.decode.group_s.get(g, zero) for g in GROUPS], size)
    per_request = prefill * state.prefill_chunks + decode * state.decode_steps_per_request
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
        ttft_parts_s=_table([parts[p] for p in TTFT_PARTS], size),
        bottleneck=per_request.argmax(axis=0),
        binding=binding,
        running_per_rank=full(state.running_per_rank),
        prefill_chunks=full(state.prefill_chunks),
        kv_wait_s=full(corrected.kv_wait_s),
        ttft_log_sd=full(corrected.ttft_log_sd),
        tpot_log_sd=full(corrected.tpot_log_sd),
        throughput_log_sd=full(corrected.throughput_log_sd),
    )
