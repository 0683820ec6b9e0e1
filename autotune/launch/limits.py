"""Values with which an engine starts and keeps running: they fit the memory model, with a stated margin."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from autotune.engines import ENGINES
from autotune.engines.service import StartLimits
from autotune.scoring.exchange_choice import without_exchange_buffer
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.scoring.peaks import KV_MARGIN_FRAC, peak_variance, peaks_words, with_peaks
from autotune.study import Study, cluster_of, on_cluster
from autotune.tuning import PlanResult
from costmodel.errors import InputError
from costmodel.step.collectives import EXCHANGES
from costmodel.step.memory import CONTEXT_BYTES, Memory

LENGTH_HEADROOM_FRAC = 0.05
"""Beyond the longest prompt and output of the study: chat templates and special tokens add to what users send."""
LENGTH_STEP = 256
"""Engines allocate KV in blocks of 16 to 128 tokens; a round figure is easier to read."""


def plan_rows(study: Study, plan: PlanResult) -> KnobGrid:
    """The plan with its own dtypes and token budget, as the cost model takes it."""
    return KnobGrid.of(study, [Variant.of(plan)], [plan.knobs.max_num_batched_tokens])


def start_limits(rows: KnobGrid, plan: PlanResult, exchange: str) -> StartLimits:
    """What the server of a plan is started with, whose tokens reach their experts as `scored_exchange` says.

    Raises:
        InputError: `kv_fits_longest`: one request of the study's longest prompt and output does not fit in the KV
            room, so that no server would start with that length.
    """
    study = rows.study
    if exchange != "routed":
        rows = replace(rows, batch=without_exchange_buffer(rows.batch))
    longest = max(study.workload.longest_prompt, study.workload.isl.max) + study.workload.osl.max
    variance = peak_variance(study.workload)
    most = min(study.engine_options.max_num_seqs, study.workload.concurrency or np.inf)
    wanted = int(min(with_peaks(plan.knobs.max_num_seqs, variance), most))
    memory = _memory(study, rows, wanted, longest)
    room = float(memory.kv_room_bytes[0])
    alone = float(memory.kv_bytes_longest[0])
    if room < alone:
        raise InputError.single(
            "plan",
            f"kv_fits_longest: a request of {longest:,} tokens must fit in the KV room of its rank, got "
            f"{alone / 2**30:.2f} GiB needed, {room / 2**30:.2f} GiB room",
        )
    length = _with_headroom(longest, study.arch.max_position_embeddings)
    if float(_memory(study, rows, wanted, length).kv_bytes_longest[0]) > room:
        length = longest
    mean = float(memory.kv_bytes_per_sequence[0])
    seqs = max(min(wanted, int(room / (1.0 + KV_MARGIN_FRAC) // mean)), 1)
    final = _memory(study, rows, seqs, length)
    said = f"maximum length {length:,} tokens: the study's longest prompt and output are {longest:,}"
    buffer = float(rows.batch.backend.buffer_bytes(np.array([float(seqs)]))[0])
    limits, of_seqs = _limits(study, plan, final, seqs, length), _of_sequences(plan, wanted, seqs, variance)
    return replace(limits, exchange_buffer_bytes=buffer, assumptions=(said,), of_sequences=of_seqs)


def _of_sequences(plan: PlanResult, wanted: int, seqs: int, variance: float) -> tuple[str, ...]:
    out, mean = [], plan.knobs.max_num_seqs
    if seqs > mean:
        out.append(f"sequences per rank {seqs:,}: {mean:,} on average, and {peaks_words(mean, variance)}")
    if seqs < wanted:
        out.append(
            f"sequences per rank {seqs:,} of {wanted:,}: as many as there is KV room for, {KV_MARGIN_FRAC:.0%} to spare"
        )
    if plan.knobs.max_num_batched_tokens < seqs:
        out.append(f"token budget raised to {seqs:,}: engines want at least a token for each sequence")
    return tuple(out)


def _with_headroom(longest: int, most: int) -> int:
    length = ceil(longest * (1.0 + LENGTH_HEADROOM_FRAC) / LENGTH_STEP) * LENGTH_STEP
    return max(min(length, most), longest) if most else length


def _memory(study: Study, rows: KnobGrid, seqs: int, length: int) -> Memory:
    layout = rows.batch.layout
    return rows.batch.memory(
        rows.load(np.array([float(seqs) * float(layout.replicas[0]) * float(layout.attn_dp[0])])),
        longest_prompt=np.array([length - study.workload.osl.mean]),
        memory_fraction=rows.bounds()["memory_fraction"],
    )


def _limits(study: Study, plan: PlanResult, memory: Memory, seqs: int, length: int) -> StartLimits:
    room, total = float(memory.kv_room_bytes[0]), float(memory.hbm_bytes[0])
    weights, fixed = float(memory.weight_bytes[0]), float(memory.fixed_bytes[0])
    needed = max(seqs * float(memory.kv_bytes_per_sequence[0]), float(memory.kv_bytes_longest[0]))
    fraction = study.engine_options.gpu_memory_utilization
    if ENGINES[plan.engine].traits.kv_fraction_is_of_free:
        # the pool ends where the other engines' does, at the study's share of total memory, if that holds what runs
        room = min(room, max(fraction * total - fixed, needed))
    return StartLimits(
        max_model_len=length,
        max_num_seqs=seqs,
        max_num_batched_tokens=max(plan.knobs.max_num_batched_tokens, seqs),
        gpu_memory_utilization=fraction,
        static_fraction=_floor((weights + room) / (total - CONTEXT_BYTES)),
        kv_free_fraction=_floor(room / (total - fixed)),
        kv_room_bytes=room,
        kv_needed_bytes=needed,
        weight_bytes=weights,
    )


def _floor(fraction: float) -> float:
    """Three digits, rounded down: never more memory than is meant."""
    return int(fraction * 1000.0) / 1000.0


MOST_SEQS = 1 << 16
READ_BACK = 0.003
"""By how much a share of memory may be off that was rounded when it was written: then it is the same."""


def filled_by_static(study: Study, plan: PlanResult, static_fraction: float, seqs: int | None) -> float | None:
    """The share of total memory that a server fills whose weights and KV have `static_fraction`; None: the study's.

    What `_limits` writes, the other way round. `seqs` is what a rank runs at once; None: as many as the load has.
    """
    memory, rows = _started_for(study, plan, seqs)
    total, fixed = float(memory.hbm_bytes[0]), float(memory.fixed_bytes[0])
    room = static_fraction * (total - CONTEXT_BYTES) - float(memory.weight_bytes[0])
    filled = min(max((room + fixed) / total, 0.001), 1.0)
    return None if abs(filled - rows.study.engine_options.gpu_memory_utilization) <= READ_BACK else filled


def filled_by_free(study: Study, plan: PlanResult, free_fraction: float, seqs: int | None) -> float | None:
    """The same of a server whose KV has a share of what weights and activations leave free: as the cost model has it.

    It is the study's also where the KV ends at the study's share of total memory, as exports have it.
    """
    memory, rows = _started_for(study, plan, seqs)
    total, fixed = float(memory.hbm_bytes[0]), float(memory.fixed_bytes[0])
    usual = rows.study.engine_options.gpu_memory_utilization
    exported = (usual * total - fixed) / (total - fixed)
    return None if exported - READ_BACK <= free_fraction <= usual + READ_BACK else free_fraction


def _started_for(study: Study, plan: PlanResult, seqs: int | None) -> tuple[Memory, KnobGrid]:
    rows = plan_rows(on_cluster(study, cluster_of(study, plan.gpu, plan.layout.gpus)), plan)
    longest = max(study.workload.longest_prompt, study.workload.isl.max) + study.workload.osl.max
    peak = with_peaks(plan.knobs.max_num_seqs, peak_variance(rows.study.workload))
    return _memory(rows.study, rows, min(seqs or MOST_SEQS, peak), longest), rows


def scored_exchange(rows: KnobGrid, plan: PlanResult) -> str:
    """How the cost model took tokens to their experts in decode steps of the plan, the way that was fastest.

    `routed`: an all-to-all sends each token to the ranks of its experts; `gather`: all tokens are gathered;
    `reduce`: without attention-DP, partial sums are all-reduced; `none`: one rank, or no experts.
    """
    if not rows.study.arch.is_moe or plan.layout.width == 1:
        return "none"
    if plan.layout.attn_dp == 1:
        return "reduce"
    if plan.layout.two_batch_overlap:
        return "routed"
    state = rows.steady(np.array([float(plan.knobs.concurrency)]))
    step = rows.batch.step(state.decode.work, record=True)
    taken = {o.name for o in step.operators or () if o.name in EXCHANGES and float(np.max(o.seconds)) > 0.0}
    return "routed" if "ep_dispatch" in taken else "gather"
