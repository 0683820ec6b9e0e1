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

from costmodel.columns import Columns, Floats
from costmodel.holding import held_back
from costmodel.memory import Memory
from costmodel.operators import Machine, StepTime, step_time
from costmodel.stages import StageTable
from costmodel.work import StepWork, decode_work, mean_context, mean_window_context

ROUNDS = 2
PACKED_TOKENS = 1024.0
"""Waiting prompts shorter than this share a step; from about here on a step's GEMMs are bound by FLOPs
(an H100's ridge lies at 295 FLOPs per byte), so that packing more tokens into it gains nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineColumns(Columns):
    """End-to-end parameters of an engine: what its scheduler and front end add. Shape `(num_plans,)` or `(1,)`."""

    step_s: Floats
    """Host time of a decode step that the GPU waits for."""
    sequence_s: Floats
    """Sampling and scheduling, per sequence and step."""
    prefill_layer_s: Floats
    """Launch-bound floor of an eager prefill pass, per layer."""
    frontend_s: Floats
    """Request handling before the scheduler sees it."""
    token_s: Floats
    """Tokenising and transport, per prompt token."""
    wait_steps: Floats
    """Running steps that a new request waits for."""
    burst_frac: Floats
    """Share of requests that arrive together with all others. Where lengths vary, a benchmark's first wave:
    with ten prompts per slot, one request in ten."""
    burst_same_frac: Floats
    """The same where all requests have the same lengths: what began together ends together, wave after wave."""
    mixes: Floats
    """1 where prompts and decoding share a step, 0 where a prefill pass runs alone (SGLang's default)."""
    dp_serial_frac: Floats
    """Share of attention-DP ranks' prefills that stall the other ranks."""
    decode_factor: Floats
    prefill_factor: Floats


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
    factor: Floats
    """The engine's factor on kernels and collectives."""
    host_s: Floats
    """Host time on each stage that its GPUs wait for; on the first alone the micro-batch waits for it too."""
    layer_floor_s: Floats
    """What launching a layer's kernels takes at least; 0 where they are launched as a graph."""

    def pipelined_s(self, count: Floats) -> Floats:
        """Seconds of `count` micro-batches from an empty pipeline to an empty one."""
        return self.through_s + (count - 1.0) * self.stage_s

    def on_stages(self, stages: StageTable) -> Floats:
        """Seconds on the worst candidate of each row of `stages`, until it can take the next micro-batch.

        For the stages that the pass ran on this is `stage_s`; for `StageTable.each`, every stage by itself.
        """
        floor = stages.worst({"dense": self.layer_floor_s, "moe": self.layer_floor_s})
        return np.maximum(stages.worst(self.step.per_layer_s) * self.factor + self.step.send_s, floor) + self.host_s


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


def _slowest_stage_s(stages: StageTable, step: StepTime) -> Floats:
    """Kernels, collectives and hand-over of a plan's slowest stage; the last, which has the head, hands nothing on."""
    head = np.maximum(step.per_layer_s["head"] - step.send_s, 0.0)
    return stages.worst({**step.per_layer_s, "head": head}) + step.send_s


def _decode_pass(machine: Machine, stages: StageTable, engine: EngineColumns, work: StepWork, factor: Floats) -> Pass:
    step = step_time(machine, work)
    slowest = _slowest_stage_s(stages, step) * factor
    total = np.asarray(sum(step.group_s.values())) * factor
    host = engine.step_s + engine.sequence_s * work.decode_sequences
    return Pass(
        through_s=total + host,
        stage_s=slowest + host,
        kernel_s=slowest,
        step=step,
        work=work,
        factor=factor,
        host_s=host,
        layer_floor_s=np.zeros(1),
    )


def _prefill_pass(machine: Machine, stages: StageTable, engine: EngineColumns, work: StepWork, layers: Floats) -> Pass:
    step = step_time(machine, work)
    kernels = _slowest_stage_s(stages, step) * engine.prefill_factor
    total = np.asarray(sum(step.group_s.values())) * engine.prefill_factor
    floor = engine.prefill_layer_s
    # the stage with the most layers launches longest, where they do not divide evenly
    slowest = np.maximum(kernels, stages.worst({"dense": floor, "moe": floor}))
    return Pass(
        through_s=np.maximum(total, floor * layers) + engine.step_s,
        stage_s=slowest + engine.step_s,
        kernel_s=kernels,
        step=step,
        work=work,
        factor=engine.prefill_factor,
        host_s=engine.step_s,
        layer_floor_s=engine.prefill_layer_s,
    )


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
    layers = arch.num_dense_layers + arch.num_moe_layers
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
    prompt_context = mean_context(new, cached)
    window_context = mean_window_context(load.isl, arch.window, arch.window_is_chunked)
    kv_read = cached + new * (chunks + 1.0) / 2.0 / chunks

    def prefill(prompts: Floats, on: Floats) -> Pass:
        """A step of chunks of this many prompts on each of so many attention-DP ranks."""
        work = StepWork(
            prefill_tokens=chunk * prompts,
            prefill_tokens_group=chunk * prompts * on,
            prefill_context=prompt_context,
            prefill_context_window=window_context,
            prefill_kv_tokens=kv_read * prompts,
            decode_sequences=np.zeros(1),
            decode_context=context,
            sampled=prompts / chunks,
        )
        return _prefill_pass(machine, stages, engine, work, layers)

    lone = prefill(np.ones(1), np.ones(1))
    own_prefill = lone.pipelined_s(chunks)
    # prompts that arrive together fill a step's token budget
    packed = np.clip(load.batched_tokens / chunk, 1.0, np.maximum(running / ranks, 1.0))
    packed_s = chunks * prefill(packed, ranks).stage_s / packed
    # under load every rank has a prompt, and the experts of all of them to compute
    loaded = prefill(np.ones(1), ranks) if np.any(ranks > 1.0) else lone

    slots = np.minimum(layout.pp, running)
    decoding = running
    arrivals = (running - 1.0) / running
    # prompts of different attention-DP ranks share steps but for a serialised part
    share = engine.dp_serial_frac + (1.0 - engine.dp_serial_frac) / ranks
    # of a wave of prompts, half lie before a request's own on average, and half after it
    wave = 0.5 * (running - 1.0) * packed_s * share
    burst = np.where(load.same_lengths > 0.0, engine.burst_same_frac, engine.burst_frac)
    for _ in range(ROUNDS):
        batch = np.maximum(decoding / (slots * ranks), 1.0 / ranks)
        decode = _decode_pass(machine, stages, engine, decode_work(batch, context, load.step_tokens), drafting)
        round_s = np.maximum(decode.through_s, slots * decode.stage_s)
        # a chunk that rides on a decode step shares its pass over the weights, but no step can be shared twice
        steps = np.maximum(arrivals * running * chunks * share, 1e-9)
        ridden = engine.mixes * np.minimum(rounds / steps, 1.0)
        mixed = loaded.stage_s - ridden * np.minimum(decode.stage_s, 0.5 * loaded.stage_s)
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
    queue = burst * wave + np.minimum(others, running - 1.0) * packed_s * share
    parts = {
        "front_end": engine.frontend_s + engine.token_s * load.isl + 0.0 * tpot,
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
    longest_s = _longest_extra_s(machine, stages, engine, load, layers, longest_prompt, own_prefill)
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


def _longest_extra_s(
    machine: Machine,
    stages: StageTable,
    engine: EngineColumns,
    load: Load,
    layers: Floats,
    longest: Floats,
    own_prefill: Floats,
) -> Floats:
    """What a request with the longest prompt waits beyond a mean one: its own longer prefill."""
    if not np.any(longest > load.isl):
        return np.zeros(1)
    new = np.maximum(longest - load.isl * load.prefix_hit_frac, 1.0)
    chunks = np.ceil(new / load.batched_tokens)
    work = StepWork(
        prefill_tokens=new / chunks,
        prefill_tokens_group=new / chunks,
        prefill_context=mean_context(new, longest - new),
        prefill_context_window=mean_window_context(longest, machine.arch.window, machine.arch.window_is_chunked),
        prefill_kv_tokens=longest - new + new * (chunks + 1.0) / 2.0 / chunks,
        decode_sequences=np.zeros(1),
        decode_context=longest,
        sampled=1.0 / chunks,
    )
    lone = _prefill_pass(machine, stages, engine, work, layers)
    return np.maximum(lone.pipelined_s(chunks) - own_prefill, 0.0)
