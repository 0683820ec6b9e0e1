"""Steps of a decode pool: most carry no prompt, and where it prefills some itself, some do.

A front may send prompts with few tokens to compute straight to the decode pool (conditional disaggregation). Of a
request with `R` decode steps, one step in `R` ends it, so that `B / R` requests come per step of `B`, of which a share
brings its prompt along. They come at random, as in `costmodel.serving.step_mix`, and a step with prompts is one pass
over all its tokens: engines whose passes of prompts run alone prefill nothing in a decode pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from costmodel.disaggregated.pool_calibration import PoolFactors
from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats
from costmodel.serving.load import Load
from costmodel.serving.step_mix import prompt_tokens, prompts_in_step, room_left
from costmodel.step.pipeline_pass import Pass, step_pass
from costmodel.step.step_work import joint_work, prompt_work

LEAST_ROUNDS = 1.0
"""Steps of a request at least, where some are prefilled here: that of its prompt, if it has no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPrompts:
    """The prompts that come to a decode pool without their cache."""

    share: float
    """Of all requests."""
    new: float
    """Tokens of each that are computed, mean."""
    cached: float
    """Tokens of each that the decode pool finds in its own prefix cache, mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSteps:
    """Steps of a micro-batch, by the formulas. Arrays of shape `(num_plans,)`; what has no other word is a mean."""

    round_s: Floats
    """From one decode step of a sequence to its next."""
    kernel_s: Floats
    """Kernels and collectives of a step on the slowest stage, drafting included."""
    math_s: Floats
    """FLOPs of a step at the dense peak, all stages."""
    hbm_bytes: Floats
    """HBM traffic of a step, all stages."""
    group_s: Mapping[str, Floats]
    """Seconds of a step by operator group, drafting not included."""
    local_s: Floats
    """A step with prompts through all stages; 0 where no step has any."""


def decode_steps(  # noqa: PLR0913  # one for each thing that nothing else follows from
    batch: PlanBatch,
    load: Load,
    alone: Pass,
    slots: Floats,
    requests: Floats,
    local: LocalPrompts | None,
    factors: PoolFactors,
    factor: Floats,
) -> DecodeSteps:
    """Steps of which those without prompts are `alone`.

    A step with prompts takes longer than the formulas say as a pass of a prefill pool does, by its prompts' tokens.

    Args:
        batch: the plans.
        load: outputs, token budget and drafts of the pool.
        alone: a step without prompts.
        slots: micro-batches that follow each other.
        requests: of a micro-batch, over all attention-DP ranks.
        local: prompts that are prefilled here; None: none.
        factors: what measured pools say.
        factor: decode steps over the formulas', by which all that is returned is to be multiplied.
    """
    verified = 1.0 + load.draft_frac
    if local is None:
        return DecodeSteps(
            round_s=np.maximum(alone.through_s, slots * alone.stage_s) * verified,
            kernel_s=alone.kernel_s * verified,
            math_s=alone.step.math_s,
            hbm_bytes=alone.step.hbm_bytes,
            group_s=alone.step.group_s,
            local_s=np.zeros(1),
        )
    share, loaded, more = _with_prompts(batch, load, alone, requests, local)
    longer = _longer(loaded, batch.layout.attn_dp, factors.prefill, factor) / factor

    def mean(of_alone: Floats, of_loaded: Floats) -> Floats:
        return more * (of_alone + share * (of_loaded - of_alone))

    def drafted(of_alone: Floats, of_loaded: Floats) -> Floats:
        return more * (of_alone * verified + share * (of_loaded * longer - of_alone))

    through_s, stage_s = drafted(alone.through_s, loaded.through_s), drafted(alone.stage_s, loaded.stage_s)
    return DecodeSteps(
        round_s=np.maximum(through_s, slots * stage_s),
        kernel_s=drafted(alone.kernel_s, loaded.kernel_s),
        math_s=mean(alone.step.math_s, loaded.step.math_s),
        hbm_bytes=mean(alone.step.hbm_bytes, loaded.step.hbm_bytes),
        group_s={name: mean(alone.step.group_s[name], s) for name, s in loaded.step.group_s.items()},
        local_s=loaded.through_s * longer + alone.through_s * load.draft_frac,
    )


def _longer(loaded: Pass, ranks: Floats, prefill: Floats, decode: Floats) -> Floats:
    """A step with prompts over the formula's, by its tokens: those of prompts as in a prefill pass, others as decoding.

    By tokens and not by time, so that nothing that shortens a step lengthens another.
    """
    prompts = loaded.work.prefill_tokens_group
    return decode + prompts / (prompts + loaded.work.decoded * ranks) * (prefill - decode)


def _with_prompts(
    batch: PlanBatch, load: Load, alone: Pass, requests: Floats, local: LocalPrompts
) -> tuple[Floats, Pass, Floats]:
    """Share of the steps that carry prompts, such a step, and steps for each that there would be without prompts.

    Where all that have room for prompts do not suffice for those that come, requests wait for more of them.
    """
    ranks, new = batch.layout.attn_dp, np.array([local.new])
    needed = local.share * requests / np.maximum(load.decode_rounds, LEAST_ROUNDS)
    left = room_left(load, alone.work.decode_sequences * load.step_tokens)
    filled = needed * new / (ranks * left)
    more = np.maximum(filled, 1.0)
    needed = needed / more
    # no more prompts meet in a step than there is room for, nor than it has requests
    share = np.minimum(np.maximum(-np.expm1(-needed), np.maximum(filled, needed / requests)), 1.0)
    busiest, in_all = prompts_in_step(needed, share, ranks, np.minimum(left / new, requests))
    prompts = prompt_work(
        prompts=busiest,
        tokens=new,
        cached=np.array([local.cached]),
        chunks=np.ones(1),
        ranks=in_all / busiest,
    )
    work = joint_work(prompts, alone.work, beside=np.ones(1))
    outgrown = prompt_tokens(new, busiest, left)
    loaded = step_pass(batch.machine(), batch.stages, batch.columns.engine, work, prompt_tokens=outgrown)
    return share, loaded, more
