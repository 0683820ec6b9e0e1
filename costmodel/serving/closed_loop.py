"""Steady state of continuous batching with a fixed number of requests in flight (closed loop).

Per replica, with `c` requests in flight, `L` output tokens and marginal prefill cost `a`:

    decode residence   D = (L - 1) t_round + (other prompts that arrive meanwhile) a
    TPOT               = D / (L - 1)
    TTFT               = front end + own prefill + wait for the running step + queue behind prompts + KV wait
    requests/s         = c / (TTFT + D)                                      (Little's law, exact in a closed loop)

With speculative decoding a step runs the drafted tokens of every sequence beside its last one and yields `y` of them on
average: L - 1 tokens take (L - 1) / y rounds, each longer by the time of drafting.

The number decoding and D depend on each other; a few rounds of substitution settle them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from costmodel.plan.columns import Columns, Floats
from costmodel.plan.stages import StageTable
from costmodel.serving.scheduler_polling import held_back
from costmodel.step.memory import Memory
from costmodel.step.operators import rank_time
from costmodel.step.pipeline_pass import EngineColumns, Pass, decode_pass, front_end_s, prefill_pass
from costmodel.step.step_inputs import Machine
from costmodel.step.step_work import StepWork, decode_work, prompt_work

ROUNDS = 2
PACKED_TOKENS = 1024.0
"""Waiting prompts shorter than this share a step; from about here on a step's GEMMs are bound by FLOPs
(an H100's ridge lies at 295 FLOPs per byte), so that packing more tokens into it gains nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(Columns):
    """What is asked of a plan. Shape `(num_plans,)` or `(1,)`."""

    isl: Floats
    """Mean prompt length, tokens."""
    osl: Floats
    """Mean output length, tokens."""
    prefix_hit_frac: Floats
    """Share of prompt tokens found in the prefix cache."""
    concurrency: Floats
    """Requests in flight over all replicas."""
    batched_tokens: Floats
    """Token budget of a step, per attention-DP rank."""
    max_num_seqs: Floats
    """Sequences that run at once, per attention-DP rank."""
    kv_isl: Floats = field(default_factory=lambda: np.zeros(1))
    """Mean prompt length of the sequences that hold cache, tokens, where those of several kinds share it; 0: `isl`."""
    kv_osl: Floats = field(default_factory=lambda: np.zeros(1))
    """The same of outputs; 0: `osl`."""
    same_lengths: Floats = field(default_factory=lambda: np.zeros(1))
    """1 where every request has just these lengths, 0 where they vary."""
    poll_steps: Floats = field(default_factory=lambda: np.zeros(1))
    """Steps between the scheduler's looks at new requests; 0: every step."""
    hold_steps: Floats = field(default_factory=lambda: np.zeros(1))
    """Steps for which a first waiting prompt waits for others; 0: none."""
    step_tokens: Floats = field(default_factory=lambda: np.ones(1))
    """Tokens of a sequence that a decode step runs: 1, and the drafted ones of speculative decoding."""
    accepted_tokens: Floats = field(default_factory=lambda: np.ones(1))
    """Tokens of a sequence that a decode step yields, mean."""
    draft_frac: Floats = field(default_factory=lambda: np.zeros(1))
    """Time of drafting over the time of the step that verifies."""

    @property
    def decode_rounds(self) -> Floats:
        """Decode steps of a request: its output after the first token, over what a step yields."""
        return np.maximum(self.osl - 1.0, 0.0) / self.accepted_tokens


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
    prefill: Pass
    """One prompt alone, one chunk."""
    prefill_loaded: Pass
    """The same with a prompt on every attention-DP rank, whose experts all of them compute."""
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
    """Prefill passes over the attention-DP ranks that share each, times the engine's factor on kernels."""
    decode_passes_per_request: Floats
    """`decode_steps_per_request` times the engine's factor on kernels."""
    math_s: Floats
    """Per request and rank: FLOPs at the dense peak, all stages."""
    hbm_s: Floats
    """Per request and rank: HBM bytes at the peak bandwidth, all stages."""
    host_s: Floats
    """Per request: host time that the GPU waits for."""


def steady_state(
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
    arch, layout = machine.arch, machine.layout
    ranks = layout.attn_dp
    active = np.minimum(layout.replicas, np.maximum(load.concurrency, 1.0))
    in_flight = np.maximum(load.concurrency, 1.0) / active
    room = np.maximum(memory.kv_room_bytes, 0.0) / memory.kv_bytes_per_sequence
    admitted = np.maximum(np.minimum(np.floor(room), load.max_num_seqs), 1.0) * ranks
    running = np.minimum(in_flight, admitted)
    outputs = np.maximum(load.osl - 1.0, 0.0)
    rounds = load.decode_rounds
    drafting = engine.decode_factor * (1.0 + load.draft_frac)
    context = load.isl + load.osl / 2.0

    new = np.maximum(load.isl * (1.0 - load.prefix_hit_frac), 1.0)
    cached = load.isl - new
    chunks = np.ceil(new / load.batched_tokens)
    chunk = new / chunks

    def chunks_of(prompts: Floats, on: Floats) -> StepWork:
        """A step of chunks of this many prompts on each of so many attention-DP ranks."""
        return prompt_work(
            prompts=prompts,
            tokens=new,
            cached=cached,
            chunks=chunks,
            ranks=on,
        )

    one = np.ones(1)
    own = rank_time(machine, chunks_of(one, one))
    lone = prefill_pass(machine, stages, engine, chunks_of(one, one), own)
    own_prefill = lone.pipelined_s(chunks)
    # under load every rank has a prompt, and the experts of all of them to compute
    loaded = prefill_pass(machine, stages, engine, chunks_of(one, ranks), own) if np.any(ranks > 1.0) else lone
    # prompts that arrive together fill a step's token budget
    packed = np.clip(load.batched_tokens / chunk, 1.0, np.maximum(running / ranks, 1.0))
    packed_s = chunks * prefill_pass(machine, stages, engine, chunks_of(packed, ranks)).stage_s / packed

    slots = np.minimum(layout.pp, running)
    decoding = running
    arrivals = (running - 1.0) / running
    # prompts of different attention-DP ranks share steps but for a serialised part
    share = engine.dp_serial_frac + (1.0 - engine.dp_serial_frac) / ranks
    # of a wave of prompts, half lie before a request's own on average, and half after it
    wave = 0.5 * (running - 1.0) * packed_s * share
    # requests of the same lengths that began together end together: all of them where decoding waits until every
    # prompt is prefilled; where prompts ride on decode steps they part, down to some that a few steps took along
    same, riding = load.same_lengths > 0.0, engine.mixes > 0.0
    burst = np.where(same & ~riding, 1.0, engine.burst_frac)
    group = np.where(same & riding, np.minimum(running, engine.together), 1.0)
    for _ in range(ROUNDS):
        batch = np.maximum(decoding / (slots * ranks), 1.0 / ranks)
        decode = decode_pass(machine, stages, engine, decode_work(batch, context, load.step_tokens), drafting)
        round_s = np.maximum(decode.through_s, slots * decode.stage_s)
        # a chunk that rides on a decode step shares its pass over the weights, not the attention of the sequences that
        # decode; and no step can be shared twice
        steps = np.maximum(arrivals * running * chunks * share, 1e-9)
        ridden = engine.mixes * np.minimum(rounds / steps, 1.0)
        groups = decode.step.group_s
        pass_s = decode.kernel_s * (1.0 - groups["attention_core"] / np.asarray(sum(groups.values())))
        mixed = loaded.stage_s - ridden * np.minimum(pass_s, 0.5 * loaded.stage_s)
        marginal = chunks * mixed * share
        residence = rounds * round_s
        # D = residence + arrivals * marginal * running * D / (own + D): the positive root of a quadratic
        pull = arrivals * running * marginal
        half = 0.5 * (residence + pull - own_prefill)
        settled = half + np.sqrt(half * half + residence * own_prefill)
        settled = settled + burst * (residence + wave - settled)
        # a request of one token ends with its prefill: what it waits for others lies before that
        settled = np.where(outputs > 0.0, settled, 0.0)
        decoding = running * settled / (own_prefill + settled)
    tpot = np.where(outputs > 0.0, settled / np.maximum(outputs, 1.0), 0.0)

    held_steps, others = held_back(load.poll_steps, load.hold_steps, running / np.maximum(rounds, 1.0))
    queue = burst * wave + (0.5 * (group - 1.0) + np.minimum(others, running - 1.0)) * packed_s * share
    parts = {
        "front_end": front_end_s(engine, arch, load.isl) + 0.0 * tpot,
        "own_prefill": own_prefill,
        "running_step": (engine.wait_steps + held_steps) * round_s,
        "queue": queue,
    }
    # no stage does more work than it has time for: what does not fit waits before its prefill. While requests
    # mostly decode they stay staggered and prompts hardly collide, so that it falls to decoding instead.
    busy = running * marginal * np.minimum(chunk / PACKED_TOKENS, 1.0) + rounds * round_s
    prefilling = own_prefill / (own_prefill + settled)
    parts["queue"] = queue + prefilling * np.maximum(busy - np.asarray(sum(parts.values())) - settled, 0.0)
    unloaded = np.asarray(sum(parts.values()))
    per_replica = running / (unloaded + settled)
    parts["kv_wait"] = (in_flight - running) / per_replica
    ttft = unloaded + parts["kv_wait"]

    per_request = chunks * loaded.kernel_s * share + rounds * decode.kernel_s / np.maximum(batch * ranks, 1e-9)
    # a prompt's attention runs on one attention rank, its experts on all of them, which read their weights once for
    # the prompts that share a step
    alone, every = lone.step, 1.0 - 1.0 / ranks
    math_s = (chunks * alone.math_s + rounds * decode.step.math_s / batch) / ranks
    math_s = math_s + chunks * alone.experts_math_s * every
    moved = (chunks * alone.hbm_bytes + rounds * decode.step.hbm_bytes / batch) / ranks
    moved = moved + chunks * alone.experts_hbm_bytes * (share - 1.0 / ranks)
    longest_s = longest_extra_s(machine, stages, engine, load, longest_prompt, own_prefill)
    steps = rounds / np.maximum(batch * ranks, 1e-9)
    return SteadyState(
        ttft_s=ttft,
        ttft_longest_s=ttft + longest_s,
        tpot_s=tpot,
        requests_per_s=active * per_replica,
        running_per_rank=running / ranks,
        decoding_per_rank=decoding / ranks,
        gpu_busy_frac=np.minimum(per_replica * per_request, 1.0) * active / layout.replicas,
        compute_util_frac=per_replica * math_s / layout.pp * active / layout.replicas,
        # packed prompts share a read of the weights that is counted for each of them
        bandwidth_util_frac=np.minimum(per_replica * moved / layout.pp / hbm_bytes_per_s, 1.0)
        * active
        / layout.replicas,
        ttft_parts_s=parts,
        prefill=lone,
        prefill_loaded=loaded,
        decode=decode,
        micro_batches=slots,
        round_s=round_s,
        prefill_chunks=chunks,
        decode_steps_per_request=steps,
        prefill_passes_per_request=chunks * share * engine.prefill_factor,
        decode_passes_per_request=steps * drafting,
        math_s=math_s,
        hbm_s=moved / hbm_bytes_per_s,
        host_s=steps * (engine.step_s + engine.sequence_s * batch) + chunks * engine.step_s,
    )


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
    new = np.maximum(longest - load.isl * load.prefix_hit_frac, 1.0)
    chunks = np.ceil(new / load.batched_tokens)
    work = prompt_work(
        prompts=np.ones(1),
        tokens=new,
        cached=longest - new,
        chunks=chunks,
        ranks=np.ones(1),
    )
    lone = prefill_pass(machine, stages, engine, work)
    return np.maximum(lone.pipelined_s(chunks) - own_prefill, 0.0)
