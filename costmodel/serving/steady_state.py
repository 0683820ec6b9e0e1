"""Steady state of continuous batching with a fixed number of requests in flight: the fluid limit of the scheduler.

A replica runs step after step, and `B` sequences decode in each. How its steps look is `step_mix`; how many sequences
decode, `balance`; `settle` has both fit. Then

    decode residence   D = R x mean step                    R: decode steps of a request
    TPOT               D / (L - 1)                          L: output tokens
    TTFT               the sum of `ttft_parts`
    requests/s         running / (TTFT + D)                 (Little's law)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.plan.columns import Floats
from costmodel.plan.stages import StageTable
from costmodel.serving.balance import MOST_UTILISED, Residence, balance, prefill_queue_s, prefill_use
from costmodel.serving.benchmark_waves import waves
from costmodel.serving.load import Load
from costmodel.serving.replica_share import ReplicaShare, replica_share
from costmodel.serving.scheduler_polling import held_back
from costmodel.serving.settle import Plant, Settling
from costmodel.serving.step_mix import StepMix, chunk_work, step_mix
from costmodel.step.memory import Memory
from costmodel.step.pipeline_pass import EngineColumns, Pass, front_end_s, step_pass
from costmodel.step.step_inputs import Machine
from costmodel.step.step_work import prompt_work

NEARLY_FULL = 0.9
"""Share of what prefill can do from which on its queue begins to be as long as what is in flight makes it, whatever
first tokens take: the fullest of the measured closed loops ask for that much."""
MOST_ROUNDS = 40
"""Times that steps and balance are computed in turn at most."""
TOGETHER = 3
"""Rounds after which the plans that have not settled go on by themselves, where they are less than half."""
FEWEST_APART = 1000
"""Twice the plans for which that saves time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyState:
    """What a plan settles into. Every array has shape `(num_plans,)`."""

    ttft_s: Floats
    ttft_longest_s: Floats
    tpot_s: Floats
    requests_per_s: Floats
    """Over all replicas."""
    running_per_rank: Floats
    """Sequences that hold KV cache, per attention rank."""
    decoding_per_rank: Floats
    gpu_busy_frac: Floats
    """Share of the time in which the busiest stage's GPU runs kernels or collectives."""
    compute_util_frac: Floats
    """Achieved over dense peak FLOPs/s, mean over stages."""
    bandwidth_util_frac: Floats
    """Achieved over peak HBM bytes/s, mean over stages."""
    ttft_parts_s: dict[str, Floats]
    backlog_s: Floats
    """What of the queue is there as a replica serves no more, however soon a prompt comes to its first token."""
    prefill: Pass
    """A chunk of one prompt without what runs beside it, as long as chunks are under load."""
    prefill_loaded: Pass
    """The prompt tokens of a step under load, alone."""
    decode: Pass
    """One micro-batch of a decode step at the settled batch."""
    micro_batches: Floats
    """Of a decode step: they follow each other through the stages."""
    round_s: Floats
    """From one decode step of a sequence to its next while nothing else runs."""
    prefill_chunks: Floats
    decode_steps_per_request: Floats
    """Decode steps over the sequences that share each: what one request's output costs in steps."""
    prefill_passes_per_request: Floats
    """Prefill passes over the prompts that share each."""
    decode_passes_per_request: Floats
    """`decode_steps_per_request`, drafting included."""
    math_s: Floats
    """Per request and rank: FLOPs at the dense peak, all stages."""
    hbm_s: Floats
    """Per request and rank: HBM bytes at the peak bandwidth, all stages."""
    host_s: Floats
    """Per request: host time that the GPU waits for."""


def steady_state(  # noqa: PLR0913  # one for each table, and what load cannot say
    machine: Machine,
    stages: StageTable,
    engine: EngineColumns,
    load: Load,
    memory: Memory,
    *,
    hbm_bytes_per_s: Floats,
    longest_prompt: Floats,
) -> SteadyState:
    """Solve every plan's closed loop."""
    share = replica_share(machine.layout, load, memory)
    front_s = front_end_s(engine, machine.arch, load.isl)
    plant = Plant(machine=machine, stages=stages, engine=engine, load=load, share=share, front_s=front_s)
    most = np.minimum(share.running, _most_decoding(plant)) + 0.0 * front_s
    _, mix, residence, decoding, queue_s = _settled(plant, Settling.of(most))
    decode_s = residence.undisturbed_s + residence.per_decoding_s * decoding
    if np.any(load.waves > 0.0):
        benchmark = waves(
            plant,
            mix,
            before_decode_s=residence.before_decode_s,
            residence_s=decode_s,
            undisturbed_s=residence.undisturbed_s,
            queue_s=queue_s,
        )
        decode_s, queue_s = benchmark.residence_s, benchmark.queue_s
    full = np.clip((prefill_use(decoding, residence) - NEARLY_FULL) / (MOST_UTILISED - NEARLY_FULL), 0.0, 1.0)
    backlog_s = np.where(load.osl > 1.0, full * queue_s, 0.0)
    queue_s = np.where(load.osl > 1.0, queue_s, prefill_queue_s(share.running, residence))
    decode_s = np.where(load.osl > 1.0, decode_s, 0.0)
    more_s = np.maximum(_least_s(engine, share, mix) - residence.before_decode_s - decode_s - queue_s, 0.0)
    queue_s, backlog_s = queue_s + more_s, backlog_s + more_s
    parts = ttft_parts(plant, mix, queue_s, decode_s)
    ttft_s = np.asarray(sum(parts.values()))
    per_replica = share.running / (ttft_s - parts["kv_wait"] + decode_s)
    chunks = np.rint(mix.chunks)
    lone = step_pass(machine, stages, engine, chunk_work(share, chunks, np.ones(1), np.ones(1)))
    longest_s = longest_extra_s(machine, stages, engine, load, longest_prompt, lone.pipelined_s(chunks))
    used = _use(plant, mix, lone, chunks, per_replica)
    layout = machine.layout
    served = per_replica * share.active / layout.replicas
    return SteadyState(
        ttft_s=ttft_s,
        ttft_longest_s=ttft_s + longest_s,
        tpot_s=np.where(load.osl > 1.0, decode_s / np.maximum(load.osl - 1.0, 1e-9), 0.0),
        requests_per_s=share.active * per_replica,
        running_per_rank=share.running / share.ranks,
        decoding_per_rank=decoding / share.ranks,
        gpu_busy_frac=served * used.kernel_s,
        compute_util_frac=served * used.math_s / layout.pp,
        bandwidth_util_frac=served * used.hbm_bytes / layout.pp / hbm_bytes_per_s,
        ttft_parts_s=parts,
        backlog_s=backlog_s,
        prefill=lone,
        prefill_loaded=step_pass(machine, stages, engine, mix.prompts),
        decode=mix.decode,
        micro_batches=share.micro_batches,
        round_s=mix.round_s,
        prefill_chunks=chunks,
        decode_steps_per_request=used.steps,
        prefill_passes_per_request=used.passes,
        decode_passes_per_request=used.steps * (1.0 + load.draft_frac),
        math_s=used.math_s,
        hbm_s=used.hbm_bytes / hbm_bytes_per_s,
        host_s=used.steps * (engine.step_s + engine.sequence_s * mix.batch) + used.passes * engine.step_s,
    )


def _settled(plant: Plant, settling: Settling, turn: int = 0) -> tuple[Settling, StepMix, Residence, Floats, Floats]:
    """Steps and what a request meets where they fit each other; sequences that decode, and seconds in the queue."""
    while True:
        mix = step_mix(plant, settling)
        residence = _residence(plant, mix)
        decoding, queue_s = balance(plant.share.running, residence)
        turn += 1
        if turn < MOST_ROUNDS:
            stays_s = residence.undisturbed_s + residence.per_decoding_s * decoding
            waiting = decoding / stays_s * (queue_s + mix.own_prefill_s)
            settling = settling.after(decoding, mix.base_s, mix.with_prompts_s, waiting, turn)
        going = np.flatnonzero(~settling.done)
        if turn >= MOST_ROUNDS or not going.size:
            return settling, mix, residence, decoding, queue_s
        if turn >= TOGETHER and FEWEST_APART < 2 * going.size < settling.done.size:
            part, *_ = _settled(plant.slice(going), settling.slice(going), turn)
            settling, turn = settling.put(going, part), MOST_ROUNDS


def ttft_parts(plant: Plant, mix: StepMix, queue_s: Floats, decode_s: Floats) -> dict[str, Floats]:
    """What time to first token is made of, seconds by part; TTFT is their sum.

    A request passes the front end, waits for the step that runs (and for what the scheduler's polling or batching
    adds), queues behind other prompts, is prefilled, and its token is handed on while later steps run. With no cache
    for it, it waits until others end, at the pace at which those that run are served.
    """
    share = plant.share
    parts = {
        "front_end": plant.front_s + 0.0 * queue_s,
        "own_prefill": mix.own_prefill_s,
        "running_step": _step_wait_s(plant, mix),
        "queue": queue_s,
    }
    unloaded_s = np.asarray(sum(parts.values()))
    parts["kv_wait"] = (share.in_flight - share.running) * (unloaded_s + decode_s) / share.running
    return parts


def _step_wait_s(plant: Plant, mix: StepMix) -> Floats:
    """From the front end to the step that a prompt joins, and from the step's end to the client."""
    engine, load, share = plant.engine, plant.load, plant.share
    # a closed loop sends as another request ends, after any step as often; random instants fall into long steps
    random = np.where(share.micro_batches > 1.0, 1.0, load.open_loop)
    step_s = mix.mean_step_s + random * (mix.met_step_s - mix.mean_step_s)
    # a pipeline that is not full starts a micro-batch as soon as its first stage is free
    free_s = mix.base_s * np.minimum(share.running / share.stages, 1.0)
    full = np.clip(share.running / share.stages - 1.0, 0.0, 1.0)
    step_s = np.where(share.stages > 1.0, free_s + full * (step_s - free_s), step_s)
    # nobody runs beside a request that is alone; where nothing decodes the step that runs is the queue's first
    beside = np.clip(share.running - 1.0 + load.open_loop, 0.0, 1.0) * (load.osl > 1.0)
    running_s = 0.5 * step_s * beside
    held_steps, _ = held_back(load.poll_steps, load.hold_steps, share.running / np.maximum(share.rounds, 1.0))
    return running_s + held_steps * mix.round_s + engine.handover_steps * mix.base_s


def _most_decoding(plant: Plant) -> Floats:
    """Sequences that decode while every token budget is full: a request takes its prompt and its rounds of them."""
    engine, load, share = plant.engine, plant.load, plant.share
    tokens = share.new + share.rounds * load.step_tokens
    return np.where(engine.mixes > 0.0, share.rounds * share.cells * load.batched_tokens / tokens, np.inf)


def _residence(plant: Plant, mix: StepMix) -> Residence:
    """What a request meets while steps are as in `mix`."""
    engine, load, share = plant.engine, plant.load, plant.share
    others = np.where(load.open_loop > 0.0, 1.0, (share.running - 1.0) / share.running)
    # whoever has a single token comes back as soon as it is served: in a closed loop prefill always finds work
    steady = (load.same_lengths > 0.0) | ((load.osl <= 1.0) & (load.open_loop <= 0.0))
    weight = np.where(steady, 0.0, load.arrival_cv2 * others)
    service_s = mix.chunks * mix.with_prompts_s / mix.prompts_per_step
    # with prefill first, requests end in steps of decoding alone, and come back as far apart as those and the front end
    free_s = mix.base_s + plant.front_s + engine.handover_steps * mix.base_s
    alternating = (engine.mixes <= 0.0) & (load.open_loop <= 0.0) & (load.osl > 1.0)
    weight = np.where(alternating, weight * free_s / (free_s + service_s), weight)
    return Residence(
        before_decode_s=plant.front_s + _step_wait_s(plant, mix) + mix.own_prefill_s,
        undisturbed_s=share.rounds * mix.round_s,
        per_decoding_s=share.rounds * mix.held_up_s / (mix.batch * share.cells) * others,
        service_s=service_s,
        queue_weight=weight,
        most_decoding=_most_decoding(plant),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """What a request takes of a replica."""

    steps: Floats
    passes: Floats
    kernel_s: Floats
    math_s: Floats
    hbm_bytes: Floats


def _prefill_s(engine: EngineColumns, mix: StepMix) -> Floats:
    """Kernels on the slowest stage that a request's prompt adds to steps, its part of what prompts share."""
    return mix.chunks / mix.prompts_per_step * (mix.loaded.kernel_s - engine.mixes * mix.decode.kernel_s)


def _least_s(engine: EngineColumns, share: ReplicaShare, mix: StepMix) -> Floats:
    """Least time from a request's start to its end: the slowest stage runs the prompts of all, and a step at a time.

    In that time each request that runs is replaced once. Where few are in flight, long prompts follow each other so
    closely that none of them finds the stage free, however rarely one comes by the number of steps. Where the prompts
    take more steps than a request's output, all steps carry some.
    """
    with_prompts = share.running * mix.chunks / mix.prompts_per_step
    steps = np.maximum(share.rounds * share.micro_batches, engine.mixes * with_prompts)
    kernels_s = share.running * _prefill_s(engine, mix) + steps * mix.base_kernel_s
    return np.maximum(kernels_s, with_prompts * mix.with_prompts_s)


def _use(plant: Plant, mix: StepMix, lone: Pass, chunks: Floats, per_replica: Floats) -> _Use:
    """A request's part of the steps that it shares with others, where a replica serves `per_replica` of them a second.

    Alone its prompt takes `chunks` passes as `lone`.

    More sequences decode in a step than in the mean of the time, part of which passes while prompts alone are run: so
    no more steps are counted than have room beside the prompts.
    """
    engine, load, share = plant.engine, plant.load, plant.share
    passes, prefill_s = mix.chunks / mix.prompts_per_step, _prefill_s(engine, mix)
    beside, loaded = mix.decode, mix.loaded
    room = np.maximum(1.0 / per_replica - prefill_s, 0.0) / mix.base_kernel_s
    steps = np.minimum(load.decode_rounds / np.maximum(mix.batch * share.ranks, 1e-9), room)
    kernel_s = prefill_s + steps * mix.base_kernel_s
    moved = passes * (loaded.step.hbm_bytes - engine.mixes * beside.step.hbm_bytes) + steps * beside.step.hbm_bytes
    # a prompt's attention runs on one rank, its experts on all of them
    math_s = (chunks * lone.step.math_s + load.decode_rounds * beside.step.math_s / mix.batch) / share.ranks
    math_s = math_s + chunks * lone.step.experts_math_s * (1.0 - 1.0 / share.ranks)
    return _Use(steps=steps, passes=passes, kernel_s=kernel_s, math_s=math_s, hbm_bytes=moved)


def longest_extra_s(
    machine: Machine,
    stages: StageTable,
    engine: EngineColumns,
    load: Load,
    longest: Floats,
    own_prefill: Floats,
) -> Floats:
    """What a request with the longest prompt waits beyond a mean one: its own longer prefill."""
    if not np.any(longest > load.isl):
        return np.zeros(1)
    lone, chunks = lone_prompt(machine, stages, engine, load, longest)
    return np.maximum(lone.pipelined_s(chunks) - own_prefill, 0.0)


def lone_prompt(
    machine: Machine, stages: StageTable, engine: EngineColumns, load: Load, tokens: Floats
) -> tuple[Pass, Floats]:
    """One of the passes of a prompt of so many tokens with nothing beside it, and how many there are.

    What it finds in the prefix cache is as much as a mean prompt does, or a share of its own length (`load`). It has
    the whole token budget of each step.
    """
    shared = np.where(load.shared_grows > 0.0, tokens, load.isl)
    new = np.maximum(tokens - shared * load.prefix_hit_frac, 1.0)
    chunks = np.ceil(new / load.batched_tokens)
    work = prompt_work(
        prompts=np.ones(1),
        tokens=new,
        cached=tokens - new,
        chunks=chunks,
        ranks=np.ones(1),
    )
    return step_pass(machine, stages, engine, work), chunks
