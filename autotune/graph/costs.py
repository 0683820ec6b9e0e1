"""What the nodes of a phase are and cost: what follows what inside a layer, at the batch that the plan settles into.

The operators are the cost model's own, which books those of a layer one after the other, without overlap, as its
calibration was fitted. So the shared experts, which no token exchange waits for, come before it all the same: an edge
of order, not of data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autotune.graph.values import COMMUNICATION, COMPUTE, Task
from autotune.scoring.knob_grid import KnobGrid
from costmodel.arch.arch import group_kind
from costmodel.arch.attention import AttentionKind
from costmodel.arch.ffn import FfnKind
from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats
from costmodel.step.attention_cores import DECODE_CORE, INDEXER, PROMPT_CORE
from costmodel.step.operators import Operator
from costmodel.step.pipeline_pass import Pass

LAYER_INPUT = ""
"""Stands for what the layer before hands over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An operator and the operators of its layer that it waits for; those that a model lacks are passed over."""

    name: str
    after: tuple[str, ...]
    scope: str = "active"
    """`active`: each rank that has tokens; `all`: each rank of the stage; `tp`, `stage`: a collective over that."""
    order_after: tuple[str, ...] = ()
    """Operators that the engine runs before, though nothing flows from them."""
    collective: str = ""


_SEEN_BY_CORE = (
    "qkv_proj",
    "qkv_a_proj",
    "q_b_proj",
    "kv_b_proj",
    "compress_proj",
    "in_proj",
    "gate_b_proj",
    "dt_proj",
    INDEXER,
)

ATTENTION = (
    Step(name="norms", after=(LAYER_INPUT,)),
    Step(name="qkv_proj", after=("norms",)),
    Step(name="qkv_a_proj", after=("norms",)),
    Step(name="in_proj", after=("norms",)),
    Step(name="q_b_proj", after=("qkv_a_proj",)),
    Step(name="kv_b_proj", after=("qkv_a_proj",)),
    Step(name="index_q_proj", after=("qkv_a_proj",)),
    Step(name="index_k_proj", after=("norms",)),
    Step(name="index_proj", after=("norms",)),
    Step(name="compress_proj", after=("norms",)),
    Step(name="gate_a_proj", after=("norms",)),
    Step(name="gate_b_proj", after=("gate_a_proj",)),
    Step(name="x_proj", after=("in_proj",)),
    Step(name="dt_proj", after=("x_proj",)),
    Step(name=INDEXER, after=("index_q_proj", "index_k_proj", "index_proj", "compress_proj")),
    Step(name=PROMPT_CORE, after=_SEEN_BY_CORE),
    Step(name=DECODE_CORE, after=_SEEN_BY_CORE),
    Step(name="o_a_proj", after=(PROMPT_CORE, DECODE_CORE)),
    Step(name="o_proj", after=(PROMPT_CORE, DECODE_CORE, "o_a_proj")),
    Step(name="tp_all_reduce", after=("o_proj",), scope="tp", collective="all_reduce"),
)
DENSE = (
    Step(name="norms", after=(LAYER_INPUT,)),
    Step(name="up_proj", after=(LAYER_INPUT, "norms")),
    Step(name="down_proj", after=("up_proj",)),
    Step(name="tp_all_reduce", after=("down_proj",), scope="tp", collective="all_reduce"),
    Step(name="side_gate_proj", after=("tp_all_reduce", "down_proj")),
    Step(name="side_proj", after=("side_gate_proj",)),
)
_BEFORE_EXPERTS, _AFTER_EXPERTS = ("dp_gather", "ep_dispatch"), ("experts",)
MOE = (
    Step(name="norms", after=(LAYER_INPUT,)),
    Step(name="router", after=(LAYER_INPUT, "norms")),
    Step(name="latent_down_proj", after=(LAYER_INPUT, "norms")),
    Step(name="up_proj", after=(LAYER_INPUT, "norms")),
    Step(name="down_proj", after=("up_proj",)),
    Step(name="dp_gather", after=("router",), scope="stage", order_after=("down_proj",), collective="all_gather"),
    Step(name="ep_dispatch", after=("router",), scope="stage", order_after=("down_proj",), collective="all_to_all"),
    Step(
        name="experts", after=("router", "latent_down_proj", *_BEFORE_EXPERTS), scope="all", order_after=("down_proj",)
    ),
    Step(name="dp_scatter", after=_AFTER_EXPERTS, scope="stage", collective="reduce_scatter"),
    Step(name="ep_combine", after=_AFTER_EXPERTS, scope="stage", collective="all_to_all"),
    Step(name="moe_all_reduce", after=(*_AFTER_EXPERTS, "down_proj"), scope="stage", collective="all_reduce"),
    Step(name="latent_up_proj", after=(*_AFTER_EXPERTS, "dp_scatter", "ep_combine", "moe_all_reduce")),
)
HEAD = (Step(name="lm_head", after=(LAYER_INPUT,)),)

STEPS: dict[str, tuple[Step, ...]] = {kind.value: ATTENTION for kind in AttentionKind}
"""By kind of block, whose layers' groups are named after it."""
STEPS |= {FfnKind.DENSE.value: DENSE, FfnKind.MOE.value: MOE, "head": HEAD}


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
    """Costs of `phase` for the one plan in `rows`.

    Of a decode step with so many requests in flight over all replicas; a prompt is alone in its replica, whatever the
    load is.
    """
    load = np.array([concurrency])
    if phase == "prefill":
        whole, chunks = rows.batch.lone_prompt(rows.load(load))
        return pass_costs(rows.batch, whole, decoding=False, count=_one(chunks), drafted=1.0, round_s=None)
    state = rows.steady(load)
    # drafting lengthens a decode step by a share of it
    drafted = _one(state.decode_passes_per_request) / max(_one(state.decode_steps_per_request), 1e-12)
    # a share of a micro-batch comes from requests over replicas that do not divide: it takes a pass of its own
    count, round_s = _one(state.micro_batches), _one(state.round_s)
    return pass_costs(rows.batch, state.decode, decoding=True, count=count, drafted=drafted, round_s=round_s)


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
