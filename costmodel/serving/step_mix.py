"""What a replica's steps look like while `B` sequences decode in each: most carry no prompt, and some carry a few.

Of a request with `R` decode steps, one step in `R` ends it, and the next request's prompt takes its place: `B / R`
prompts come per step. They come at random, so that a step carries any with probability `1 - exp(-B / R)` (prompts that
need several steps count as often), unless they fill the token budget: then more steps do. Fewer do where steps with
prompts are longer than others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from costmodel.plan.columns import Floats
from costmodel.serving.load import Load
from costmodel.serving.loaded_steps import steps_with_prompts
from costmodel.serving.replica_share import ReplicaShare
from costmodel.serving.settle import Plant, Settling
from costmodel.step.pipeline_pass import Pass, step_pass
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
    share_loaded: Floats
    """Share of a micro-batch's turns that carry prompts."""
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
    base_kernel_s: Floats
    """Kernels and collectives of that step on the slowest stage."""
    with_prompts_s: Floats
    """A step with prompts, until the slowest stage takes the next."""
    with_prompts_through_s: Floats
    """The same step through all stages."""
    slowest_through_s: Floats
    """The step with the most prompts of a turn, through all stages."""
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
        long_s, round_s = self.long_turn_s(self.any_loaded), self.round_s
        return round_s + self.any_loaded * (long_s - round_s)

    @property
    def held_up_s(self) -> Floats:
        """What prompts add to the time from one decode step of a sequence to its next, mean."""
        beyond = np.where(self.mixes > 0.0, self.loaded_share / np.maximum(self.share_loaded, 1e-300), 1.0)
        turns = np.where(self.mixes > 0.0, 1.0, 1.0 + self.loaded_share)
        return beyond * (turns * self.turn_s - self.round_s)

    def long_turn_s(self, any_loaded: Floats) -> Floats:
        """A turn in which some micro-batches carry prompts."""
        queued_s = self._loaded_in_turn(any_loaded) * (self.with_prompts_s - self.base_s)
        return np.maximum(self.slowest_through_s, self.micro_batches * self.base_s + queued_s)

    def _loaded_in_turn(self, any_loaded: Floats) -> Floats:
        """Micro-batches that carry prompts in a turn in which some do, mean."""
        loaded = self.micro_batches * self.share_loaded / np.maximum(any_loaded, 1e-300)
        return np.minimum(np.maximum(loaded, 1.0), self.micro_batches)

    @property
    def mean_step_s(self) -> Floats:
        """Mean length of a step, each counted once: from the start of one micro-batch to that of the next."""
        return self.turn_s / self.micro_batches

    @property
    def met_step_s(self) -> Floats:
        """Mean length of the step that a random instant falls into: long ones are met more often.

        Passes that follow each other leave whoever comes behind them to wait as if they were spread over the turns.
        """
        many, round_s = self.micro_batches, self.round_s
        spread = -np.expm1(many * np.log1p(-np.minimum(self.share_loaded, MOST_LOADED)))
        chance = np.where(self.mixes > 0.0, self.any_loaded, np.maximum(self.any_loaded, spread))
        loaded, without_s = self._loaded_in_turn(chance), round_s / many
        with_one_s = (self.long_turn_s(chance) - (many - loaded) * without_s) / loaded
        share = chance * loaded / many
        squares = without_s**2 + share * (with_one_s**2 - without_s**2)
        return squares / (without_s + share * (with_one_s - without_s))


def _any_loaded(mix: StepMix) -> Floats:
    """Probability that any micro-batch of a turn carries prompts; chunks of one prompt go with one turn.

    Those that come during a long turn share the next one, so that fewer turns are long than prompts are many.
    """
    loaded, many = mix.share_loaded, mix.micro_batches
    if np.all(many <= 1.0):
        return loaded
    per_turn = -many * np.log1p(-np.minimum(loaded / np.minimum(mix.chunks, many), MOST_LOADED))
    round_s, chance = mix.round_s, -np.expm1(-per_turn)
    for _ in range(TURNS):
        with_one_s = mix.long_turn_s(chance)
        per_s = per_turn / (round_s + chance * (with_one_s - round_s))
        after_none = 1.0 - np.exp(-per_s * round_s)
        chance = 0.5 * (chance + after_none / (after_none + np.exp(-per_s * with_one_s)))
    # chunks of one prompt may be on several micro-batches, but any of them is loaded as often as one of them at least
    if not np.all(mix.mixes > 0.0):
        chance = np.where(mix.mixes > 0.0, chance, _any_loaded_first(mix))
    chance = np.maximum(chance, loaded)
    return np.where(many > 1.0, chance, loaded)


def _any_loaded_first(mix: StepMix) -> Floats:
    """The same with prefill first, where micro-batches follow each other.

    The passes for what ends in a turn of decoding come one behind the other: they fill turns, but for half of a last
    one on average. A single prompt has a turn to itself.
    """
    many, together = mix.micro_batches, np.minimum(mix.chunks, mix.micro_batches)
    passes = many * mix.loaded_share
    not_full = 0.5 * (1.0 - together / many) * -np.expm1(-2.0 * passes / together)
    return np.minimum((passes / many + not_full) / (1.0 + mix.loaded_share), 1.0)


def chunk_work(share: ReplicaShare, chunks: Floats, on_busiest: Floats, in_all: Floats) -> StepWork:
    """Chunks of so many prompts on the busiest rank, and of so many on all ranks, in one step."""
    return prompt_work(
        prompts=on_busiest,
        tokens=share.new,
        cached=share.cached,
        chunks=chunks,
        ranks=in_all / on_busiest,
    )


def _mean_chunks(new: Floats, left: Floats, spread: Floats) -> Floats:
    """Steps that a prompt of `new` tokens needs where `left` of a budget is left, with a deviation of `spread`.

    A step more is needed below each whole part of the prompt. What is left is taken to be even within the width that
    has this deviation: sequences that decode come and go, and near such an edge some prompts need the step and some do
    not.
    """
    edge = np.maximum(np.rint(new / left), 1.0)
    more = 0.5 + (new / edge - left) / np.maximum(2.0 * np.sqrt(3.0) * spread, 1e-300)
    return np.where(spread > 0.0, edge + np.clip(more, 0.0, 1.0), np.ceil(new / left))


def room_left(load: Load, decoded: Floats) -> Floats:
    """Tokens of a step's budget that are left to prompts beside `decoded` ones, per attention rank."""
    return np.maximum(load.batched_tokens - decoded, LEAST_LEFT * load.batched_tokens)


def prompts_in_step(needed: Floats, loaded_share: Floats, ranks: Floats, most: Floats) -> tuple[Floats, Floats]:
    """Chunks of prompts on the busiest attention-DP rank, and on all ranks, of a step that has any.

    Args:
        needed: chunks that come per step.
        loaded_share: steps with prompts per step.
        ranks: attention-DP ranks.
        most: chunks that a rank has room for.
    """
    per_rank = needed / np.maximum(loaded_share, 1.0) / ranks
    on_busiest = np.maximum(needed / loaded_share / ranks, per_rank / -np.expm1(-per_rank))
    on_busiest = np.minimum(np.maximum(on_busiest, 1.0), np.maximum(most, 1.0))
    return on_busiest, np.maximum(needed / loaded_share, on_busiest)


def prompt_tokens(chunk: Floats, prompts: Floats, left: Floats) -> tuple[Floats, Floats]:
    """Least and most tokens on the busiest rank of steps with `prompts` in the mean, and one of them at least.

    Whether a step outgrows the graphs that are captured is left to how many prompts it has.
    """
    return chunk, np.minimum((2.0 * prompts - 1.0) * chunk, np.maximum(left, prompts * chunk))


def step_mix(plant: Plant, settling: Settling) -> StepMix:
    """Steps while as many sequences of a replica decode as are tried."""
    machine, stages, engine, load, share = plant.machine, plant.stages, plant.engine, plant.load, plant.share
    mixes, ranks = engine.mixes > 0.0, share.ranks
    batch = np.maximum(settling.tried / share.cells, 1.0 / ranks)
    decode = step_pass(machine, stages, engine, decode_work(batch, share.context, load.step_tokens))
    left = room_left(load, np.where(mixes, batch * load.step_tokens, 0.0))
    chunks = _mean_chunks(share.new, left, np.where(mixes, np.sqrt(batch) * load.step_tokens, 0.0))
    chunk = share.new / chunks

    arriving = batch * ranks / share.rounds
    needed = arriving * chunks
    # no more prompts meet in a step than the budget has room for, nor than its micro-batch has requests
    requests = share.running / share.micro_batches
    least_share = np.maximum(arriving * share.new / (ranks * left), needed / requests)
    # with prefill first, a pass takes all prompts on their way that have room in it
    waits = np.minimum(settling.waiting, ranks * np.maximum(left / chunk, 1.0))
    apart = np.where(mixes | (share.micro_batches > 1.0), np.inf, needed / np.maximum(waits, 1e-9))
    loaded_share = np.maximum(np.minimum(steps_with_prompts(plant, needed, chunks, settling), apart), least_share)
    on_busiest, in_all = prompts_in_step(needed, loaded_share, ranks, np.minimum(left / chunk, requests))
    prompts = chunk_work(share, chunks, on_busiest, in_all)
    work = joint_work(prompts, decode.work, beside=engine.mixes)
    loaded = step_pass(machine, stages, engine, work, prompt_tokens=prompt_tokens(chunk, on_busiest, left))
    drafting = load.draft_frac
    with_prompts_through_s = loaded.through_s + engine.mixes * drafting * decode.through_s
    mix = StepMix(
        mixes=engine.mixes,
        micro_batches=share.micro_batches,
        batch=batch,
        decode=decode,
        loaded=loaded,
        prompts=prompts,
        loaded_share=loaded_share,
        share_loaded=np.where(mixes, np.minimum(loaded_share, 1.0), loaded_share / (1.0 + loaded_share)),
        prompts_per_step=in_all,
        chunks=chunks,
        chunk=chunk,
        left=left,
        base_s=decode.stage_s * (1.0 + drafting),
        base_through_s=decode.through_s * (1.0 + drafting),
        base_kernel_s=decode.kernel_s * (1.0 + drafting),
        with_prompts_s=loaded.stage_s + engine.mixes * drafting * decode.stage_s,
        with_prompts_through_s=with_prompts_through_s,
        slowest_through_s=with_prompts_through_s,
        any_loaded=np.zeros(1),
    )
    mix = replace(mix, any_loaded=_any_loaded(mix))
    return mix if np.all(share.micro_batches <= 1.0) else _in_pipeline(plant, mix)


def _in_pipeline(plant: Plant, mix: StepMix) -> StepMix:
    """The same steps where several micro-batches share a turn, with the step that is the longest of them.

    A micro-batch takes the prompts that came since the one before it began. A turn has as many such times as there are
    stages, S, whether or not each has its micro-batch; prompts fall on them at random, `n` on each in the mean, so that
    the most of them are about `n + sqrt(2 n ln S)`, which bounds the mean of the largest of S normal variates with the
    variance of a Poisson one.
    """
    engine, share = plant.engine, plant.share
    many, ranks = mix.micro_batches, share.ranks
    mean = mix.prompts.prefill_tokens / mix.chunk
    in_turn = many * mix.share_loaded * mix.prompts_per_step / np.maximum(mix.any_loaded, 1e-300)
    each = in_turn / share.stages
    most = each + np.sqrt(2.0 * each * np.log(share.stages))
    more = np.minimum(np.maximum(most / mix.prompts_per_step, 1.0), np.maximum(in_turn / mix.prompts_per_step, 1.0))
    on_busiest = np.maximum(np.minimum(mean * more, mix.left / mix.chunk), mean)
    in_all = np.minimum(np.maximum(mix.prompts_per_step * more, on_busiest), on_busiest * ranks)
    prompts = chunk_work(share, mix.chunks, on_busiest, in_all)
    work, tokens = (
        joint_work(prompts, mix.decode.work, beside=engine.mixes),
        prompt_tokens(mix.chunk, on_busiest, mix.left),
    )
    slowest = step_pass(plant.machine, plant.stages, engine, work, prompt_tokens=tokens)
    through_s = mix.with_prompts_through_s + np.maximum(slowest.through_s - mix.loaded.through_s, 0.0)
    mix = replace(mix, slowest_through_s=np.where(many > 1.0, through_s, mix.with_prompts_through_s))
    return replace(mix, any_loaded=_any_loaded(mix))
