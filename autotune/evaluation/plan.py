"""The plan that is evaluated, by itself: its row of the cost model, throughput, memory, and how even its stages are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autotune.engines import ENGINES
from autotune.evaluation.values import StageBytes
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.scoring.overload import told_figures
from autotune.space import Candidate
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.plan.columns import Floats, LayoutColumns
from costmodel.plan.stages import StageTable, stage_params
from costmodel.serving.steady_state import SteadyState
from costmodel.step.expert_routing import popularity_cv2, rank_load
from costmodel.step.memory import Memory
from costmodel.step.pipeline_pass import Pass


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedPlan:
    """One plan with its knobs, ready to be asked."""

    study: Study
    candidate: Candidate
    result: PlanResult
    grid: KnobGrid
    """Of this plan alone."""
    state: SteadyState
    """What it settles into at its number in flight, from the formulas alone."""

    @classmethod
    def of(cls, study: Study, candidate: Candidate, result: PlanResult) -> EvaluatedPlan:
        """Prepare a plan that was scored under `study`."""
        grid = KnobGrid.of(study, [Variant.of(result)], [result.knobs.max_num_batched_tokens])
        state = grid.steady(np.array([float(result.knobs.concurrency)]))
        return cls(study=study, candidate=candidate, result=result, grid=grid, state=state)

    @property
    def concurrency(self) -> Floats:
        """Requests in flight over all replicas, shape `(1,)`."""
        return np.array([float(self.result.knobs.concurrency)])

    def stage_memory(self) -> Memory:
        """Memory of a rank of every stage, first to last: arrays of shape `(pp,)`."""
        batch = self.grid.batch.take(np.zeros(self.candidate.layout.pp, dtype=np.int64))
        own = replace(batch, stages=self._stages())
        return own.memory(
            self.grid.load(self.concurrency),
            longest_prompt=np.array([float(self.study.workload.longest_prompt)]),
            memory_fraction=self.grid.bounds()["memory_fraction"],
        )

    def stage_s(self, step: Pass) -> list[float]:
        """Seconds of a pass on every stage, first to last."""
        return [float(s) for s in np.atleast_1d(step.on_stages(self._stages()))]

    def memory(self, longest_prompt: float) -> Memory:
        """Memory of a rank of the stage that fills first, shape `(1,)`, where no prompt has more tokens than this."""
        return self.grid.batch.memory(
            self.grid.load(self.concurrency),
            longest_prompt=np.array([longest_prompt]),
            memory_fraction=self.grid.bounds()["memory_fraction"],
        )

    def fits_longest(self, prompt_tokens: float) -> bool:
        """Whether one request with a prompt of this length has KV room."""
        held = self.memory(prompt_tokens)
        return bool(held.kv_room_bytes[0] >= held.kv_bytes_longest[0])

    def _stages(self) -> StageTable:
        arch = self.grid.batch.cells[0][0]
        return StageTable.each(arch, self.candidate.layout)


def saturation(plan: EvaluatedPlan) -> dict[str, float]:
    """The most a plan can do, latency aside, with KV room for every request, and its latencies there.

    The highest throughput over powers of two in flight per replica, the most that the cache and the seats hold, and the
    token budgets that the study tries.
    """
    own = plan.result.knobs.max_num_batched_tokens
    budgets = sorted({own, *plan.study.search.max_num_batched_tokens})
    grid = KnobGrid.of(plan.study, [plan.grid.variants[0]], budgets)
    replicas = plan.candidate.layout.replicas
    best: dict[str, float] = {}
    held = grid.admitted(np.full(len(budgets), float(replicas)))
    most = max(int(held.max()), 1)
    for per_replica in sorted({*(2**n for n in range(most.bit_length())), most}):
        in_flight = replicas * per_replica
        found = grid.evaluate(np.full(len(budgets), float(in_flight)))
        open_rows = (per_replica <= held) & (found.kv_fits_longest >= 1.0)
        if per_replica > 1 and not open_rows.any():
            break
        rate = np.where(open_rows | (per_replica == 1), found.stage_tokens_per_s_per_gpu, -1.0)
        row = int(rate.argmax())
        if not best or rate[row] > best["stage_tokens_per_s_per_gpu"]:
            best = {
                "requests_in_flight": in_flight,
                "max_num_batched_tokens": budgets[row],
                "ttft_longest_s": float(found.ttft_longest_s[row]),
                "tpot_s": float(found.tpot_s[row]),
                "stage_tokens_per_s_per_gpu": float(rate[row]),
            }
    return best


def performance(plan: EvaluatedPlan) -> dict[str, Any]:
    """Figures at the study's load beside those at saturation, and the limits that the study sets."""
    metrics, layout, limits = told_figures(plan.result), plan.candidate.layout, plan.study.constraints
    at_load = {
        "requests_in_flight": plan.result.knobs.concurrency,
        "max_num_batched_tokens": plan.result.knobs.max_num_batched_tokens,
        **{name: plan.result.metrics[name] for name in ("ttft_longest_s", "tpot_s", "stage_tokens_per_s_per_gpu")},
    }
    # some cache stays free where a whole number of requests has room for all: with one that waits a little more is done
    full = max(saturation(plan), at_load, key=lambda most: most["stage_tokens_per_s_per_gpu"])
    target = limits.min_stage_tokens_per_s_per_gpu

    def tokens_per_ms(stage_rate: float) -> dict[str, float]:
        gpus = {"per_gpu_of_a_stage": 1.0, "per_pipeline": layout.width, "in_all": layout.width * layout.replicas}
        return {scope: stage_rate * count / 1e3 for scope, count in gpus.items()}

    shown = ("gpu_util_frac", "compute_util_frac", "bandwidth_util_frac", "memory_util_frac")
    return {
        "tokens_per_ms": tokens_per_ms(metrics["stage_tokens_per_s_per_gpu"]),
        "tokens_per_ms_at_saturation": tokens_per_ms(full.pop("stage_tokens_per_s_per_gpu")) | full,
        "tokens_per_ms_target": None if target is None else tokens_per_ms(target),
        "gpus_of_a_stage": layout.width,
        "replicas": layout.replicas,
        "requests_in_flight": plan.result.knobs.concurrency,
        "requests_per_s": metrics["requests_per_s"],
        "output_tokens_per_s_per_gpu": metrics["output_tokens_per_s_per_gpu"],
        "ttft_longest_s": metrics["ttft_longest_s"],
        "ttft_limit_s": limits.ttft_s,
        "ttft_s": metrics["ttft_s"],
        "tpot_s": metrics["tpot_s"],
        "tpot_limit_s": limits.tpot_s,
        **{name: metrics[name] for name in shown},
    }


LONGEST_TRIED = 1 << 34
"""Tokens; beyond, a plan whose cache does not grow (linear attention) has no longest prompt."""


def stage_bytes(plan: EvaluatedPlan) -> tuple[StageBytes, ...]:
    """Every kind on every stage, what is free included: the kinds of a stage sum to a GPU's memory.

    Cache and activations are those of the requests that the plan was scored with, of which its own table has what the
    fullest stage holds; others hold as much more or less of each as with one sequence.
    """
    held, fullest = plan.stage_memory(), plan.memory(float(plan.study.workload.longest_prompt))
    own, of_one = plan.result.breakdown["memory_bytes"], fullest.by_kind(fullest.kv_bytes_per_sequence)
    kinds = held.by_kind(held.kv_bytes_per_sequence)
    for kind in ("kv_cache", "activations"):
        kinds[kind] = kinds[kind] * own.get(kind, 0.0) / np.maximum(of_one[kind], 1e-300)
    pp = plan.candidate.layout.pp
    columns = {kind: np.broadcast_to(size, (pp,)) for kind, size in kinds.items()}
    columns["free"] = np.broadcast_to(held.hbm_bytes, (pp,)) - np.asarray(sum(columns.values()))
    return tuple(
        StageBytes(stage=stage, kind=kind, bytes=float(size[stage]))
        for stage in range(pp)
        for kind, size in columns.items()
        if size[stage] != 0.0
    )


def capacity(plan: EvaluatedPlan) -> dict[str, Any]:
    """The largest batch at the study's lengths, and the longest prompt beside the study's output."""
    result, layout = plan.result, plan.candidate.layout
    per_replica = result.metrics["kv_capacity_sequences"]
    return {
        "largest_batch_requests": per_replica * layout.replicas,
        "largest_batch_requests_per_replica": per_replica,
        "requests_in_flight": result.knobs.concurrency,
        "longest_prompt_tokens": _longest_prompt(plan),
        "longest_prompt_of_study_tokens": plan.study.workload.longest_prompt,
        "model_context_tokens": plan.study.arch.max_position_embeddings or None,
    }


def _longest_prompt(plan: EvaluatedPlan) -> int | None:
    """By doubling and bisection through the memory model; None: any length fits, 0: none does."""
    low, high = 0, 1
    while plan.fits_longest(float(high)):
        low, high = high, high * 2
        if high > LONGEST_TRIED:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if plan.fits_longest(float(middle)) else (low, middle)
    return low


REDUNDANT_PER_RANK = (0, 1, 2)
"""Spare expert instances per expert rank that are looked at."""


def balance(plan: EvaluatedPlan) -> dict[str, Any]:
    """Experts, expected imbalance under the study's skew, and what each stage has."""
    layout, arch = plan.candidate.layout, plan.grid.batch.cells[0][0]
    stages = [
        {"stage": i, "layers": layers, "params": params, "prefill_step_s": prefill, "decode_step_s": decode}
        for i, (layers, params, prefill, decode) in enumerate(
            zip(
                layout.stage_layers,
                stage_params(arch, layout.stage_layers),
                plan.stage_s(plan.state.prefill),
                plan.stage_s(plan.state.decode),
                strict=True,
            )
        )
    ]
    out: dict[str, Any] = {
        "stages": stages,
        "slowest_over_mean_stage": {
            phase: _over_mean([s[f"{phase}_step_s"] for s in stages]) for phase in ("prefill", "decode")
        },
    }
    if arch.is_moe:
        out |= {
            "experts_per_gpu_per_layer": (arch.num_experts + layout.redundant_experts) / layout.moe_ep,
            "expert_skew": plan.study.workload.expert_skew,
            "token_imbalance": [_imbalance(plan, spare) for spare in _spares(plan)],
        }
    return out


def _spares(plan: EvaluatedPlan) -> list[int]:
    """Redundant experts to look at: the plan's own, and whole ones per rank."""
    layout = plan.candidate.layout
    # where every expert is as popular as the next, what is uneven is chance: spares have nothing to even out
    if layout.moe_ep == 1 or plan.study.workload.expert_skew == 0.0:
        return [layout.redundant_experts]
    return sorted({layout.redundant_experts, *(n * layout.moe_ep for n in REDUNDANT_PER_RANK)})


def _imbalance(plan: EvaluatedPlan, redundant: int) -> dict[str, Any]:
    """Tokens of the fullest expert rank over the mean rank's."""
    arch, layout = plan.grid.batch.cells[0][0], plan.candidate.layout
    own = replace(layout, redundant_experts=redundant)
    experts, shape = arch.expert_shapes[0], LayoutColumns.of([own], [ENGINES[plan.candidate.engine].traits])
    cv2 = np.array([popularity_cv2(arch.num_experts, plan.study.workload.expert_skew, redundant)])
    state = plan.state
    tokens = {
        "prefill": state.prefill.work.prefill_tokens_group,
        "decode": state.decode.work.decoded * layout.attn_dp,
    }
    found = {
        phase: float(np.max(rank_load(experts, shape, np.maximum(count, 1.0), cv2))) for phase, count in tokens.items()
    }
    return {
        "redundant_experts": redundant,
        "is_the_plans": redundant == layout.redundant_experts,
        "prefill_fullest_over_mean_rank": found["prefill"],
        "decode_fullest_over_mean_rank": found["decode"],
    }


def _over_mean(seconds: list[float]) -> float:
    return max(seconds) / (sum(seconds) / len(seconds))
