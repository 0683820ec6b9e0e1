"""Steps of a decode pool: most carry no prompt, and where it prefills some itself, some do.

A front may send prompts with few tokens to compute straight to the decode pool (conditional disaggregation). Its steps
are then those of a server that mixes (`costmodel.serving.step_mix`), but that only some requests bring their prompt
along: of those that a replica holds for `R` steps each, one ends in a step in `R`. Engines whose passes of prompts run
alone prefill nothing in a decode pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats
from costmodel.serving.load import Load
from costmodel.serving.replica_share import ReplicaShare
from costmodel.serving.settle import Plant, Settling
from costmodel.serving.step_mix import StepMix, step_mix
from costmodel.step.pipeline_pass import Pass, step_pass
from costmodel.step.step_work import joint_work, prompt_work

LEAST_ROUNDS = 1.0
"""Steps of a request at least, where some are prefilled here: that of its prompt, if it has no other."""
TURNS = 3
"""Times that steps and the share of them that carry prompts are computed in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPrompts:
    """The prompts that come to a decode pool without their cache."""

    share: float
    """Of all requests."""
    new: float
    """Tokens of each that are computed, mean."""
    cached: float
    """Tokens of each that the decode pool finds in its own prefix cache, mean."""
    longest_new: float = 0.0
    """Tokens that are computed of the longest of all prompts, where it is one of these; 0: it is not."""
    longest_cached: float = 0.0
    """The same of those that are found in the prefix cache."""


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
    """Seconds of a step by operator group, over those of the step and its drafts."""
    running_step_s: Floats
    """What is left of the step that a prompt finds running; 0 where none comes."""
    local_s: Floats
    """A prompt's own steps, through all stages; 0 where none comes."""
    longest_s: Floats
    """The same of the longest of all prompts; 0 where it does not come."""


def steps_of_decoding(load: Load, alone: Pass, slots: Floats) -> DecodeSteps:
    """Steps that are all `alone`: micro-batches without prompts, of which `slots` follow each other."""
    verified, none = 1.0 + load.draft_frac, np.zeros(1)
    return DecodeSteps(
        round_s=np.maximum(alone.through_s, slots * alone.stage_s) * verified,
        kernel_s=alone.kernel_s * verified,
        math_s=alone.step.math_s,
        hbm_bytes=alone.step.hbm_bytes,
        group_s=alone.step.group_s,
        running_step_s=none,
        local_s=none,
        longest_s=none,
    )


def steps_with_prompts(  # noqa: PLR0913  # one for each thing that nothing else follows from
    batch: PlanBatch,
    load: Load,
    running: Floats,
    rounds: Floats,
    local: LocalPrompts,
    prefill: Floats,
    decode: Floats,
) -> DecodeSteps:
    """Steps some of which carry prompts of requests.

    A step with prompts takes longer than the formulas say as a pass of a prefill pool does, by its prompts' tokens.

    Args:
        batch: the plans.
        load: outputs, token budget and drafts of the pool.
        running: sequences of a replica.
        rounds: steps for which each of them is held.
        local: the prompts.
        prefill: passes of prompts over the formulas'.
        decode: decode steps over the formulas', by which all that is returned is to be multiplied.
    """
    mix, longer = _settled(batch, load, running, rounds, local, prefill / decode)
    alone, loaded, drafts = mix.decode, mix.loaded, 1.0 + load.draft_frac
    # prompts that all steps with room for them do not suffice for wait for more steps
    more, share = np.maximum(mix.loaded_share, 1.0), mix.share_loaded

    # what a request takes is counted over its own steps, and its prompt comes once in those that it is held for
    own = share * np.maximum(rounds, LEAST_ROUNDS) / np.maximum(load.decode_rounds, LEAST_ROUNDS)

    def mean(of_alone: Floats, of_loaded: Floats) -> Floats:
        return more * (of_alone + own * (of_loaded - of_alone))

    return DecodeSteps(
        round_s=more * mix.turn_s,
        kernel_s=more * (alone.kernel_s * drafts + own * (loaded.kernel_s * longer - alone.kernel_s)),
        math_s=mean(alone.step.math_s, loaded.step.math_s),
        hbm_bytes=mean(alone.step.hbm_bytes, loaded.step.hbm_bytes),
        group_s={
            name: more * (alone.step.group_s[name] + own * (seconds * longer - alone.step.group_s[name]) / drafts)
            for name, seconds in loaded.step.group_s.items()
        },
        running_step_s=0.5 * mix.met_step_s,
        local_s=mix.own_prefill_s,
        longest_s=_longest_s(batch, mix, local, longer),
    )


def _settled(
    batch: PlanBatch, load: Load, running: Floats, rounds: Floats, local: LocalPrompts, prefill: Floats
) -> tuple[StepMix, Floats]:
    """Steps, those with prompts as long as measured ones are beside those without, and by how much that is longer."""
    layout = batch.layout
    share = ReplicaShare(
        active=layout.replicas,
        in_flight=running,
        running=running,
        rounds=np.maximum(rounds, LEAST_ROUNDS) / local.share,
        micro_batches=np.minimum(layout.pp, running),
        stages=layout.pp,
        ranks=layout.attn_dp,
        new=np.array([local.new]),
        cached=np.array([local.cached]),
        context=load.isl + load.osl / 2.0,
    )
    plant = Plant(
        machine=batch.machine,
        stages=batch.stages,
        engine=batch.columns.engine,
        load=replace(load, open_loop=np.ones(1)),
        share=share,
        front_s=np.zeros(1),
    )
    settling = Settling.of(running + 0.0 * layout.pp)
    for _ in range(TURNS):
        mix = step_mix(plant, settling)
        longer = _longer(mix.loaded, layout.attn_dp, prefill)
        beyond = (longer - 1.0) * mix.loaded.stage_s, (longer - 1.0) * mix.loaded.through_s
        mix = replace(
            mix,
            with_prompts_s=mix.with_prompts_s + beyond[0],
            with_prompts_through_s=mix.with_prompts_through_s + beyond[1],
            slowest_through_s=mix.slowest_through_s + beyond[1],
        )
        settling = replace(settling, base_s=mix.base_s, with_prompts_s=mix.with_prompts_s)
    return mix, longer


def _longer(loaded: Pass, ranks: Floats, prefill: Floats) -> Floats:
    """A step with prompts over the formula's where decode steps are as it says, and passes of prompts `prefill` of it.

    By tokens and not by time, so that nothing that shortens a step lengthens another.
    """
    prompts = loaded.work.prefill_tokens_group
    return 1.0 + prompts / (prompts + loaded.work.decoded * ranks) * (prefill - 1.0)


def _longest_s(batch: PlanBatch, mix: StepMix, local: LocalPrompts, longer: Floats) -> Floats:
    """Steps of the longest prompt, alone beside the sequences that decode."""
    if local.longest_new <= 0.0:
        return np.zeros(1)
    chunks = np.ceil(local.longest_new / mix.left)
    prompt = prompt_work(
        prompts=np.ones(1),
        tokens=np.array([local.longest_new]),
        cached=np.array([local.longest_cached]),
        chunks=chunks,
        ranks=np.ones(1),
    )
    work = joint_work(prompt, mix.decode.work, beside=np.ones(1))
    step = step_pass(batch.machine, batch.stages, batch.columns.engine, work)
    drafting = mix.base_through_s - mix.decode.through_s
    return step.pipelined_s(chunks) * longer + chunks * drafting
