"""Steady state of continuous batching with a fixed number of requests in flight: the fluid limit of the scheduler.

A replica runs step after step. `B` sequences decode in each; of a request with `L` output tokens, `R` decode steps are
needed; `lam = B / R` prompts arrive per step, so that some steps carry prompt tokens and most do not:

    step time          T = (1 - phi) T(B, 0) + phi T(B, p)       phi: share of steps that carry p prompt tokens
    decode residence   D = R T                                    TPOT = D / (L - 1)
    TTFT               = front end + wait for the next step + queue + own prefill + hand-over + KV wait
    requests in flight = requests/s (TTFT + D)                    (Little's law)

An engine that does not mix runs T(B, 0) and then T(0, p) instead of T(B, p). The last line decides `B`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from costmodel.plan.columns import Columns, Floats
from costmodel.plan.stages import StageTable
from costmodel.serving.scheduler_polling import held_back
from costmodel.step.memory import Memory
from costmodel.step.pipeline_pass import EngineColumns, Pass, front_end_s, step_pass
from costmodel.step.step_inputs import Machine
from costmodel.step.step_work import StepWork, decode_work, joint_work, prompt_work

ROUNDS = 3
BISECTIONS = 14
LENGTHS_WIDTH = 0.2
"""Width of the distribution of output lengths in a benchmark that varies them, over the longest: [0.8, 1.0], uniform."""
BUNCHED_MOST = 0.6
"""Utilisation in front of prefill while a benchmark's requests are still bunched, at most: they keep their distances."""


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
    waves: Floats = field(default_factory=lambda: np.zeros(1))
    """A benchmark that begins with all slots at once: how many prompts each slot sends; 0: requests come as they may."""
    open_loop: Floats = field(default_factory=lambda: np.zeros(1))
    """1 where requests arrive whatever the server does, 0 where each is sent as another ends."""
    arrival_cv2: Floats = field(default_factory=lambda: np.ones(1))
    """Squared coefficient of variation of the gaps between arrivals: 1 for Poisson, and for many closed loops together."""
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
    rounds = np.maximum(load.decode_rounds, 1e-3)
    mixes = engine.mixes > 0.0
    context = load.isl + load.osl / 2.0
    slots = np.minimum(layout.pp, running)
    cells = slots * ranks

    new = np.maximum(load.isl * (1.0 - load.prefix_hit_frac), 1.0)
    cached = load.isl - new
    one = np.ones(1)
    drafting = 1.0 + load.draft_frac
    front = front_end_s(engine, arch, load.isl)
    same = load.same_lengths > 0.0

    def prompts(on_busiest: Floats, chunks: Floats, in_all: Floats) -> StepWork:
        """A step's chunks: so many prompts on the busiest rank, and so many of all ranks."""
        return prompt_work(prompts=on_busiest, tokens=new, cached=cached, chunks=chunks, arch=arch, ranks=in_all / on_busiest)

    # many closed loops meet the queue as at random, but for the one that is theirs; the same lengths keep their order
    random = load.arrival_cv2 * np.where(same, 0.0, np.where(load.open_loop > 0.0, 1.0, (running - 1.0) / running))
    decoding = running
    waits = np.zeros(1)
    # a step's tokens: all sequences decode, and prompts get what is left of the budget
    most = rounds * cells * load.batched_tokens / (new + rounds * load.step_tokens)
    most = np.where(mixes, most, np.inf)
    for _ in range(ROUNDS):
        batch = np.maximum(np.minimum(decoding, most) / cells, 1.0 / ranks)
        decode = step_pass(machine, stages, engine, decode_work(batch, context, load.step_tokens))
        left = load.batched_tokens - np.where(mixes, batch * load.step_tokens, 0.0)
        left = np.maximum(left, 0.05 * load.batched_tokens)
        chunks = np.ceil(new / left)
        chunk = new / chunks
        arriving = batch * ranks / rounds  # prompts per step of a micro-batch
        needs = arriving * chunks
        together = np.zeros(1)
        loaded_share = np.where(together > 0.0, needs / np.maximum(together, 1.0), -np.expm1(-needs))
        loaded_share = np.maximum(loaded_share, arriving * new / (ranks * left))
        in_all = needs / loaded_share  # prompts of a step that carries any
        each = needs / ranks
        busiest = np.maximum(in_all / ranks, np.where(together > 0.0, 1.0, each / -np.expm1(-each)))
        busiest = np.clip(np.maximum(busiest, 1.0), None, np.maximum(left / chunk, 1.0))
        in_all = np.maximum(in_all, busiest)
        work = prompts(busiest, chunks, in_all)
        loaded = step_pass(machine, stages, engine, joint_work(work, decode.work) if mixes.any() else work)
        if not mixes.all():
            alone = step_pass(machine, stages, engine, work) if mixes.any() else loaded
            loaded_stage = np.where(mixes, loaded.stage_s, alone.stage_s)
            loaded_through = np.where(mixes, loaded.through_s, alone.through_s)
        else:
            loaded_stage, loaded_through = loaded.stage_s, loaded.through_s
        base = decode.stage_s * drafting
        base_through = decode.through_s * drafting
        with_stage = loaded_stage + np.where(mixes, load.draft_frac * decode.stage_s, 0.0)
        with_through = loaded_through + np.where(mixes, load.draft_frac * decode.through_s, 0.0)
        # D = rounds * (base + share * more): share is proportional to the sequences that decode
        more = np.where(mixes, with_stage - base, with_stage)
        more_through = np.where(mixes, with_through - base_through, with_through)
        round_s = np.maximum(base_through, slots * base)
        share = loaded_share
        extra = np.maximum(more_through, slots * more) * share
        per_decoding = rounds * extra / np.maximum(batch * cells, 1e-9)
        own = with_through + (chunks - 1.0) * with_stage
        step_mean = base + share * more
        spread = np.where(
            mixes,
            (1.0 - np.minimum(share, 1.0)) * base * base + np.minimum(share, 1.0) * with_stage * with_stage,
            base * base + share * with_stage * with_stage,
        )
        # in a closed loop requests come as others end, after any step as often; at random times they meet the long ones
        steps_mean = np.where(mixes, step_mean, (base + share * with_stage) / (1.0 + share))
        residual = 0.5 * (steps_mean + load.open_loop * (spread / step_mean - steps_mean))
        held_steps, _ = held_back(load.poll_steps, load.hold_steps, running / np.maximum(rounds, 1.0))
        step_wait = residual + held_steps * round_s + engine.handover_steps * base
        fixed = front + step_wait + own
        service = with_stage * new / (busiest * chunk) / ranks / np.where(mixes, 1.0, 1.0)
        decoding, waits = _balance(running, fixed, rounds * round_s, per_decoding, most, service * random, service, mixes)
    residence = rounds * round_s + per_decoding * decoding
    if np.any(load.waves > 0.0):
        full = np.clip(left / chunk, 1.0, np.maximum(running / ranks, 1.0))
        wave_work = prompts(full, chunks, full * ranks)
        beside = joint_work(wave_work, decode_work(0.5 * batch, context, load.step_tokens)) if mixes.all() else wave_work
        wave_pass = step_pass(machine, stages, engine, beside)
        # prompts of a step end together: the mean of n steps is (n + 1) / 2
        wave = 0.5 * chunks * wave_pass.stage_s * (np.maximum(running / (full * ranks), 1.0) + 1.0)
        wave = np.maximum(np.maximum(wave, own + 0.5 * in_flight * engine.serial_s) - own, 0.0)
        stall = wave * np.where(mixes, np.maximum(1.0 - base / wave_pass.stage_s, 0.0), 1.0)
        first = np.where(load.waves > 0.0, 1.0 / np.maximum(load.waves, 1.0), 0.0)
        whole = np.where(same & ~mixes, 1.0, first)  # decoding waits for all prompts: all end together, and come again
        residence = residence + whole * (rounds * round_s + stall - residence)
        beside_own = 0.5 * (np.minimum(running, engine.together) - 1.0) * np.where(same & mixes, chunks * wave_pass.stage_s / (full * ranks), 0.0)
        # later waves come in a window that lengths have widened: half of the rounds have passed on average
        served = chunks * wave_pass.stage_s / (full * ranks)
        spent = served * running
        window = np.sqrt(spent * spent + 0.5 * load.waves * (LENGTHS_WIDTH * residence) ** 2)
        use = np.minimum(spent / np.minimum(window, residence + fixed), BUNCHED_MOST)
        bunched = random * served * use / (2.0 * (1.0 - use))
        waits = np.where(load.waves > 0.0, np.maximum(waits, bunched), waits)
        waits = waits + beside_own + whole * (wave - waits - beside_own)
    residence = np.where(outputs > 0.0, residence, 0.0)
    queue = waits
    parts = {"front_end": front + 0.0 * queue, "own_prefill": own, "running_step": step_wait, "queue": queue}
    unloaded = np.asarray(sum(parts.values()))
    per_replica = running / (unloaded + residence)
    parts["kv_wait"] = (in_flight - running) / per_replica
    ttft = unloaded + parts["kv_wait"]
    tpot = np.where(outputs > 0.0, residence / np.maximum(outputs, 1.0), 0.0)

    lone = step_pass(machine, stages, engine, prompts(one, chunks, one))
    steps = load.decode_rounds / np.maximum(batch * ranks, 1e-9)
    passes = chunks / in_all
    kernel_s = passes * np.where(mixes, loaded.kernel_s - decode.kernel_s, loaded.kernel_s) + steps * decode.kernel_s
    every = 1.0 - 1.0 / ranks
    math_s = (chunks * lone.step.math_s + load.decode_rounds * decode.step.math_s / batch) / ranks
    math_s = math_s + chunks * lone.step.experts_math_s * every
    moved = passes * np.where(mixes, loaded.step.hbm_bytes - decode.step.hbm_bytes, loaded.step.hbm_bytes)
    moved = moved + steps * decode.step.hbm_bytes
    longest_s = longest_extra_s(machine, stages, engine, load, longest_prompt, lone.pipelined_s(chunks))
    return SteadyState(
        ttft_s=ttft,
        ttft_longest_s=ttft + longest_s,
        tpot_s=tpot,
        requests_per_s=active * per_replica,
        running_per_rank=running / ranks,
        decoding_per_rank=decoding / ranks,
        gpu_busy_frac=np.minimum(per_replica * kernel_s, 1.0) * active / layout.replicas,
        compute_util_frac=per_replica * math_s / layout.pp * active / layout.replicas,
        bandwidth_util_frac=np.minimum(per_replica * moved / layout.pp / hbm_bytes_per_s, 1.0) * active / layout.replicas,
        ttft_parts_s=parts,
        prefill=lone,
        prefill_loaded=step_pass(machine, stages, engine, work),
        decode=decode,
        micro_batches=slots,
        round_s=round_s,
        prefill_chunks=chunks,
        decode_steps_per_request=steps,
        prefill_passes_per_request=passes,
        decode_passes_per_request=steps * drafting,
        math_s=math_s,
        hbm_s=moved / hbm_bytes_per_s,
        host_s=steps * (engine.step_s + engine.sequence_s * batch) + passes * engine.step_s,
    )


def _balance(
    running: Floats,
    fixed: Floats,
    base: Floats,
    slope: Floats,
    most: Floats,
    random_s: Floats,
    service: Floats,
    mixes: Floats,
) -> tuple[Floats, Floats]:
    """Sequences that decode, and the queue in front of prefill, such that all `running` are accounted for.

    A request decodes for D = base + slope d where d sequences do, and d / D requests are served per second. Where they
    come at random they queue as in front of a server of `service` seconds each (Pollaczek and Khinchine), `random_s` of
    it; no more than `most` ever decode, and what is over waits.
    """

    def queue(d: Floats) -> Floats:
        use = np.where(mixes, d / most, d / (base + slope * d) * service)
        use = np.minimum(use, 0.9999)
        return random_s * use / (2.0 * (1.0 - use))

    low = np.zeros_like(running + fixed + base)
    high = np.minimum(running, most) + low
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        over = middle * (fixed + queue(middle)) > (running - middle) * (base + slope * middle)
        high = np.where(over, middle, high)
        low = np.where(over, low, middle)
    d = 0.5 * (low + high)
    stays = base + slope * d
    return d, np.maximum((running - d) * stays / np.maximum(d, 1e-12) - fixed, 0.0)


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
        arch=machine.arch,
        ranks=np.ones(1),
    )
    lone = step_pass(machine, stages, engine, work)
    return np.maximum(lone.pipelined_s(chunks) - own_prefill, 0.0)
