"""What a replica's steps look like while `B` sequences decode in each: most carry no prompt, and some carry a few.

Of a request with `R` decode steps, one step in `R` ends it, and the next request's prompt takes its place: `B / R`
prompts come per step. They come at random, so that a step carries any with probability `1 - exp(-B / R)` (prompts that
need several steps count as often), unless they fill the token budget: then more steps do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from costmodel.plan.columns import Floats
from costmodel.plan.stages import StageTable
from costmodel.serving.load import Load
from costmodel.serving.replica_share import ReplicaShare
from costmodel.step.pipeline_pass import EngineColumns, Pass, step_pass
from costmodel.step.step_inputs import Machine
from costmodel.step.step_work import StepWork, decode_work, joint_work, prompt_work

MOST_LOADED = 1.0 - 1e-9
TURNS = 5
"""Times that the share of long turns and what comes in their time are computed in turn; each halves what is left."""
LEAST_LEFT = 0.05
"""Share of a step's token budget that prompts get at least: a batch that fills the budget admits nobody for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMix:
    """Steps of a micro-batch. Arrays of shape `(num_plans,)`; seconds."""

    mixes: Floats
    """1 where prompts and decoding share a step, 0 where a pass of prompts takes a turn of its own."""
    micro_batches: Floats
    """Batches that follow each other through the pipeline's stages."""
    batch: Floats
    """Sequences that decode in a step, per attention rank."""
    decode: Pass
    """A step without prompts."""
    loaded: Pass
    """A step with prompts, beside the sequences that decode where the engine mixes."""
    prompts: StepWork
    """The prompt tokens of such a step."""
    loaded_share: Floats
    """Steps with prompts per step that decodes: a share where the engine mixes, and otherwise a number."""
    prompts_per_step: Floats
    """Chunks of prompts in a step that has any, over all ranks."""
    chunks: Floats
    """Steps that a prompt needs."""
    chunk: Floats
    """Tokens of a prompt in each of them."""
    left: Floats
    """Tokens of a step's budget that prompts may take, per rank."""
    base_s: Floats
    """Of a step without prompts, drafting included, until the slowest stage takes the next."""
    base_through_s: Floats
    """The same step through all stages."""
    with_prompts_s: Floats
    """A step with prompts, until the slowest stage takes the next."""
    with_prompts_through_s: Floats
    """The same step through all stages."""
    any_loaded: Floats
    """Probability that any micro-batch of a turn carries prompts."""

    @property
    def own_prefill_s(self) -> Floats:
        """A prompt through all stages, behind the micro-batches that are in the pipeline, chunk behind chunk."""
        behind = (self.micro_batches - 1.0) * self.mean_step_s + self.with_prompts_s
        return np.maximum(self.with_prompts_through_s, behind) + (self.chunks - 1.0) * self.with_prompts_s

    @property
    def round_s(self) -> Floats:
        """From one decode step of a sequence to its next while there are no prompts."""
        return np.maximum(self.base_through_s, self.micro_batches * self.base_s)

    @property
    def turn_s(self) -> Floats:
        """From one turn of a micro-batch to its next, mean.

        A pass with prompts is longer than the others, which queue behind it from stage to stage and cannot start their
        next turn before they are through: a pipeline runs as slowly as the slowest micro-batch in it.
        """
        further = self.micro_batches * self.share_loaded - self.any_loaded
        more_s = np.maximum(self.with_prompts_s - self.base_s, 0.0)
        return self.round_s + self.any_loaded * (self.turn_with_one_s - self.round_s) + further * more_s

    @property
    def held_up_s(self) -> Floats:
        """What prompts add to the time from one decode step of a sequence to its next, mean."""
        beyond = np.where(self.mixes > 0.0, self.loaded_share / np.maximum(self.share_loaded, 1e-300), 1.0)
        turns = np.where(self.mixes > 0.0, 1.0, 1.0 + self.loaded_share)
        return beyond * (turns * self.turn_s - self.round_s)

    @property
    def share_loaded(self) -> Floats:
        """Share of a micro-batch's turns that carry prompts."""
        return np.where(
            self.mixes > 0.0, np.minimum(self.loaded_share, 1.0), self.loaded_share / (1.0 + self.loaded_share)
        )

    @property
    def turn_with_one_s(self) -> Floats:
        """A turn in which one micro-batch carries prompts."""
        others_s = (self.micro_batches - 1.0) * self.base_s
        return np.maximum(self.with_prompts_through_s, others_s + self.with_prompts_s)

    @property
    def mean_step_s(self) -> Floats:
        """Mean length of a step, each counted once: from the start of one micro-batch to that of the next."""
        return self.turn_s / self.micro_batches

    @property
    def met_step_s(self) -> Floats:
        """Mean length of the step that a random instant falls into: long ones are met more often."""
        without_s = self.round_s / self.micro_batches
        with_one_s = self.turn_with_one_s - (self.micro_batches - 1.0) * without_s
        share = self.any_loaded / self.micro_batches
        squares = without_s**2 + share * (with_one_s**2 - without_s**2)
        return squares / (without_s + share * (with_one_s - without_s))


def _any_loaded(mix: StepMix) -> Floats:
    """Probability that any micro-batch of a turn carries prompts; chunks of one prompt go with one turn.

    Those that come during a long turn share the next one, so that fewer turns are long than prompts are many.
    """
    whole = mix.share_loaded
    size = np.broadcast_shapes(whole.shape, mix.micro_batches.shape)
    pipelines = np.flatnonzero(np.broadcast_to(mix.micro_batches > 1.0, size))
    if not pipelines.size:
        return whole
    columns = (whole, mix.micro_batches, mix.chunks, mix.round_s, mix.turn_with_one_s)
    loaded, many, chunks, round_s, with_one_s = (np.broadcast_to(c, size)[pipelines] for c in columns)
    per_turn = -many * np.log1p(-np.minimum(loaded / np.minimum(chunks, many), MOST_LOADED))
    chance = -np.expm1(-per_turn)
    for _ in range(TURNS):
        per_s = per_turn / (round_s + chance * (with_one_s - round_s))
        after_none = 1.0 - np.exp(-per_s * round_s)
        chance = 0.5 * (chance + after_none / (after_none + np.exp(-per_s * with_one_s)))
    out = np.broadcast_to(whole, size).copy()
    out[pipelines] = chance
    return out


def chunk_work(share: ReplicaShare, chunks: Floats, on_busiest: Floats, in_all: Floats) -> StepWork:
    """Chunks of so many prompts on the busiest rank, and of so many on all ranks, in one step."""
    return prompt_work(
        prompts=on_busiest,
        tokens=share.new,
        cached=share.cached,
        chunks=chunks,
        ranks=in_all / on_busiest,
    )


def step_mix(
    machine: Machine, stages: StageTable, engine: EngineColumns, load: Load, share: ReplicaShare, decoding: Floats
) -> StepMix:
    """Steps while `decoding` sequences of a replica decode."""
    mixes, ranks = engine.mixes > 0.0, share.ranks
    batch = np.maximum(decoding / share.cells, 1.0 / ranks)
    decode = step_pass(machine, stages, engine, decode_work(batch, share.context, load.step_tokens))
    left = load.batched_tokens - np.where(mixes, batch * load.step_tokens, 0.0)
    left = np.maximum(left, LEAST_LEFT * load.batched_tokens)
    chunks = np.ceil(share.new / left)
    chunk = share.new / chunks

    arriving = batch * ranks / share.rounds
    needed = arriving * chunks
    # no more prompts meet in a step than the budget has room for, nor than there are requests
    least_share = np.maximum(arriving * share.new / (ranks * left), needed / share.running)
    loaded_share = np.maximum(-np.expm1(-needed), least_share)
    per_rank = needed / ranks
    on_busiest = np.maximum(needed / loaded_share / ranks, per_rank / -np.expm1(-per_rank))
    on_busiest = np.minimum(np.maximum(on_busiest, 1.0), np.maximum(np.minimum(left / chunk, share.running), 1.0))
    in_all = np.maximum(needed / loaded_share, on_busiest)
    prompts = chunk_work(share, chunks, on_busiest, in_all)
    work = joint_work(prompts, decode.work, beside=engine.mixes)
    loaded = step_pass(machine, stages, engine, work)
    drafting = load.draft_frac
    mix = StepMix(
        mixes=engine.mixes,
        micro_batches=share.micro_batches,
        batch=batch,
        decode=decode,
        loaded=loaded,
        prompts=prompts,
        loaded_share=loaded_share,
        prompts_per_step=in_all,
        chunks=chunks,
        chunk=chunk,
        left=left,
        base_s=decode.stage_s * (1.0 + drafting),
        base_through_s=decode.through_s * (1.0 + drafting),
        with_prompts_s=loaded.stage_s + engine.mixes * drafting * decode.stage_s,
        with_prompts_through_s=loaded.through_s + engine.mixes * drafting * decode.through_s,
        any_loaded=np.zeros(1),
    )
    return replace(mix, any_loaded=_any_loaded(mix))
