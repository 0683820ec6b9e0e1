"""One forward pass of a micro-batch through a replica's stages: kernels, collectives, hand-over, and host time.

A step of an engine that mixes is ONE pass over the tokens of its decoding sequences and of its prompts: weights are
read once, both kinds of attention run, and it is launched once. An engine that does not mix runs passes of either kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.plan.columns import ArchColumns, Columns, Floats
from costmodel.plan.stages import StageTable
from costmodel.step.operators import StepTime, rank_time, with_experts
from costmodel.step.step_inputs import Machine
from costmodel.step.step_work import StepWork

ALIKE_TOKENS = 1e-6
"""Passes whose tokens differ by no more are all launched alike."""
START_EXPERTS, START_HIDDEN = 128.0, 4096.0
"""The layer that `EngineColumns.moe_start_s` is given for, Qwen3-235B's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineColumns(Columns):
    """What an engine's scheduler, launcher and front end add to the kernels. Shape `(num_plans,)` or `(1,)`."""

    step_s: Floats
    """Host time of a step that the GPU waits for."""
    sequence_s: Floats
    """Sampling and scheduling, per decoding sequence and step."""
    scheduling_sequence_s: Floats
    """Host time of preparing each decoding sequence of a step, beside the GPU: a step takes at least the sum."""
    layer_launch_s: Floats
    """Launching a layer's kernels one by one takes at least so long."""
    capture_tokens: Floats
    """Steps with prompts of at most so many tokens are launched as a captured graph, like decode steps; 0: none; below
    0: decode steps neither."""
    frontend_s: Floats
    """Request handling before the scheduler sees it."""
    token_s: Floats
    """Tokenising and transport, per prompt token."""
    moe_start_s: Floats
    """What a first token waits for in a layer of experts beyond its kernels, `START_EXPERTS` experts of a hidden size
    of `START_HIDDEN`; it grows with both. Measured, not explained: it may be compiling, tuning and launching."""
    moe_start_most: Floats
    """The most of such layers that the engine was measured with: beyond them the wait is not taken to grow."""
    handover_steps: Floats
    """Steps from a token's computation until the client has it: results are handed on while later steps run."""
    together: Floats
    """Where all requests have the same lengths and prompts ride on decode steps: prompts that arrive together."""
    mixes: Floats
    """1 where prompts and decoding share a step, 0 where a prefill pass runs alone (SGLang's default)."""


def front_end_s(engine: EngineColumns, arch: ArchColumns, isl: Floats) -> Floats:
    """What a request waits for that neither load nor plan changes, shape `(num_plans,)`."""
    starts = np.minimum(moe_starts(arch), engine.moe_start_most)
    return np.asarray(engine.frontend_s + engine.token_s * isl + engine.moe_start_s * starts)


def moe_starts(arch: ArchColumns) -> Floats:
    """Layers of experts as `EngineColumns.moe_start_s` counts them, shape `(num_models,)`."""
    width = arch.hidden_size / START_HIDDEN
    return sum((g.layers * (e.experts / START_EXPERTS) * width for g, e in arch.experts), np.zeros(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One micro-batch through the stages of a replica. Arrays of shape `(num_plans,)` or `(1,)`."""

    through_s: Floats
    """Through all stages, with nothing in its way."""
    stage_s: Floats
    """On the slowest stage, until it can take the next micro-batch."""
    kernel_s: Floats
    """Kernels and collectives alone there."""
    step: StepTime
    work: StepWork
    host_s: Floats
    """Host time on each stage that its GPUs wait for; on the first alone the micro-batch waits for it too."""
    layer_floor_s: Floats
    """What launching a layer's kernels takes at least; 0 where they are launched as a graph."""
    eager_share: Floats
    """Share of such passes whose kernels are launched one by one."""

    def pipelined_s(self, count: Floats) -> Floats:
        """Seconds of `count` micro-batches from an empty pipeline to an empty one."""
        return self.through_s + (count - 1.0) * self.stage_s

    def on_stages(self, stages: StageTable) -> Floats:
        """Seconds on the worst candidate of each row of `stages`, until it can take the next micro-batch.

        For the stages that the pass ran on this is `stage_s`; for `StageTable.each`, every stage by itself.
        """
        floor = stages.worst(launch_floor_s(self.layer_floor_s, stages))
        kernels = stages.worst(self.step.per_layer_s) + self.step.send_s
        return kernels + self.eager_share * np.maximum(floor - kernels, 0.0) + self.host_s


def launch_floor_s(layer_floor_s: Floats, stages: StageTable) -> dict[str, Floats]:
    """What launching the kernels of each group's layer takes at least: an ordinary layer is two blocks."""
    return dict.fromkeys(stages.groups, 0.5 * layer_floor_s)


def _slowest_stage_s(stages: StageTable, step: StepTime) -> Floats:
    """Kernels, collectives and hand-over of a plan's slowest stage; the last, which has the head, hands nothing on."""
    head = np.maximum(step.per_layer_s["head"] - step.send_s, 0.0)
    return stages.worst({**step.per_layer_s, "head": head}) + step.send_s


def step_pass(
    machine: Machine,
    stages: StageTable,
    engine: EngineColumns,
    work: StepWork,
    own: StepTime | None = None,
    *,
    prompt_tokens: tuple[Floats, Floats] | None = None,
) -> Pass:
    """A pass of `work`, launched as a graph where the engine has captured one.

    Args:
        machine: the plans.
        stages: of each of them.
        engine: of each of them.
        work: what is in the pass, or in the mean of such passes.
        own: its `rank_time`, if known.
        prompt_tokens: the least and the most on the busiest rank of such passes, of which some outgrow the largest
            graph and others do not: taken to be even between them. None: all are alike.
    """
    step = with_experts(machine, rank_time(machine, work) if own is None else own, work)
    kernels, total = _slowest_stage_s(stages, step), step.total_s
    host = engine.step_s + engine.sequence_s * work.decode_sequences
    # prompts that fill a budget as large as the largest graph have just its tokens, but for rounding
    captured = engine.capture_tokens * (1.0 + 1e-9) - work.decoded
    eager: Floats = np.where(work.prefill_tokens > captured, 1.0, 0.0)
    if prompt_tokens is not None:
        least, most = prompt_tokens
        beyond = np.clip((most - captured) / np.maximum(most - least, ALIKE_TOKENS), 0.0, 1.0)
        eager = np.where(most - least > ALIKE_TOKENS, beyond, eager)
    eager = np.where(work.prefill_tokens > 0.0, eager, engine.capture_tokens < 0.0)
    floor = step.of_all_batches(np.where(eager > 0.0, engine.layer_launch_s, 0.0))
    prepared = engine.scheduling_sequence_s * work.decode_sequences
    slowest, through = np.maximum(kernels, prepared), np.maximum(total, prepared)
    if eager.any():
        layers = 0.5 * machine.arch.half_layers
        # the stage with the most layers launches longest, where they do not divide evenly
        slowest = slowest + eager * np.maximum(stages.worst(launch_floor_s(floor, stages)) - slowest, 0.0)
        through = through + eager * np.maximum(floor * layers - through, 0.0)
    return Pass(
        through_s=through + host,
        stage_s=slowest + host,
        kernel_s=kernels,
        step=step,
        work=work,
        host_s=host,
        layer_floor_s=floor,
        eager_share=eager,
    )
