"""What the nodes of a phase cost: the cost model's own operators, at the batch that the plan settles into."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autotune.graph.layers import STEPS, Step
from autotune.graph.values import COMMUNICATION, COMPUTE, Task
from autotune.scoring.knob_grid import KnobGrid
from costmodel.arch.arch import group_kind
from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats
from costmodel.step.operators import Operator
from costmodel.step.pipeline_pass import Pass


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCosts:
    """One micro-batch of a phase, task by task, and the closed form of the whole step."""

    steps: dict[str, tuple[tuple[Step, Task], ...]]
    """By group of layers, in the order of a rank's stream."""
    host_s: float
    layer_floor_s: float
    send_s: float
    send_bytes: float
    micro_batches: int
    """Of a whole step."""
    tokens: float
    """Of one micro-batch, on an attention rank that has any."""
    context: float
    """Mean tokens that one of them attends to."""
    each: float
    """Decoding: tokens of a sequence in a step, those that are drafted and verified included."""
    round_s: float | None
    """Decoding: from one token of a sequence to its next, with the pipeline full."""
    whole: Pass
    drafted: float
    """What drafting makes of the step that verifies: 1 without."""

    def model_step_s(self, micro_batches: int) -> float:
        """The cost model's closed form for so many micro-batches."""
        return self.drafted * float(np.max(self.whole.pipelined_s(np.array([float(micro_batches)]))))


def phase_costs(rows: KnobGrid, concurrency: float, phase: str) -> PhaseCosts:
    """Costs of `phase` for the one plan in `rows` with so many requests in flight over all replicas."""
    state = rows.steady(np.array([concurrency]))
    whole = state.prefill if phase == "prefill" else state.decode
    # drafting lengthens a decode step by a share of it
    factor = (
        1.0
        if phase == "prefill"
        else _one(state.decode_passes_per_request) / max(_one(state.decode_steps_per_request), 1e-12)
    )
    # a share of a micro-batch comes from requests over replicas that do not divide: it takes a pass of its own
    count = _one(state.prefill_chunks if phase == "prefill" else state.micro_batches)
    round_s = _one(state.round_s) if phase == "decode" else None
    return pass_costs(rows.batch, whole, decoding=phase == "decode", count=count, drafted=factor, round_s=round_s)


def pass_costs(
    batch: PlanBatch, whole: Pass, *, decoding: bool, count: float, drafted: float, round_s: float | None
) -> PhaseCosts:
    """Costs of a step of `count` passes like `whole`, of the one plan in `batch`; fields as those of `PhaseCosts`."""
    work, factor = whole.work, drafted
    step = batch.step(work, record=True)
    return PhaseCosts(
        steps=_steps(step.operators or [], factor),
        host_s=_one(whole.host_s) * factor,
        layer_floor_s=_one(whole.layer_floor_s) * factor,
        send_s=_one(step.send_s) * factor,
        send_bytes=_one(step.send_bytes),
        micro_batches=max(math.ceil(count - 1e-9), 1),
        tokens=_one(work.decode_sequences if decoding else work.prefill_tokens),
        context=_one(work.decode_context if decoding else work.prefill_context),
        each=_one(work.decode_tokens) if decoding else 1.0,
        round_s=round_s,
        whole=whole,
        drafted=factor,
    )


def _one(values: Floats | float) -> float:
    return float(np.asarray(values).reshape(-1)[0])


def _steps(operators: list[Operator], factor: float) -> dict[str, tuple[tuple[Step, Task], ...]]:
    found = {(o.layer, o.name): o for o in operators if _one(o.seconds) > 0.0}
    out = {}
    for layer in dict.fromkeys(o.layer for o in operators):
        steps = STEPS[group_kind(layer)]
        known = [(s, _task(found.pop((layer, s.name)), s, factor)) for s in steps if (layer, s.name) in found]
        out[layer] = tuple(known)
    if found:
        raise KeyError(f"operators of the cost model without a place in a layer: {sorted(found)}")
    return out


def _task(operator: Operator, step: Step, factor: float) -> Task:
    return Task(
        # dense layers and shared experts name their matrices alike
        name=f"shared_{operator.name}" if operator.group == "shared_experts" else operator.name,
        group=operator.group,
        stream=COMMUNICATION if step.collective else COMPUTE,
        collective=step.collective,
        flops=_one(operator.flops),
        hbm_bytes=_one(operator.hbm_bytes),
        message_bytes=_one(operator.message_bytes),
        seconds=_one(operator.seconds) * factor,
    )
