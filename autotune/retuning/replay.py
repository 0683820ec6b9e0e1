"""A recorded trace, walked step by step: what re-tuning would have done, beside never, always, and knowing the future.

Requests are taken as the cost model serves them: a plan's goodput in a step is what arrives, up to what the plan takes
of that step's traffic within the limits. A switch loses what its rolling change cannot serve. All strategies begin with
the same plan; the oracle has the best plan for each step before it begins, and switches for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.comparison.best import at_capacity, best_plan
from autotune.comparison.run import compare, on_traffic
from autotune.comparison.switching import same_launch
from autotune.retuning.decide import SETTLED, SWITCH, PastSwitch
from autotune.retuning.judge import judge
from autotune.retuning.window import drift_of
from autotune.study import Baseline, Study
from autotune.traffic import TrafficLog, WorkloadProfile, profile_of_arrays
from autotune.traffic.workload import with_traffic
from autotune.tuning import PlanResult
from costmodel.errors import InputError

MIN_REQUESTS = 20
"""Steps and windows with fewer are no traffic to judge."""
OURS, NEVER, ALWAYS, ORACLE = "retune", "never", "always", "oracle"
STRATEGIES = {
    OURS: "autotune retune: drift, gain over the horizon less the cost of the switch, hysteresis",
    NEVER: "keep the first plan",
    ALWAYS: "switch whenever the model says so",
    ORACLE: "know each step's traffic, switch for nothing",
}

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Joined traffic. Arrays of shape `(num_requests,)`, times ascending from 0."""

    names: tuple[str, ...]
    ends_s: tuple[float, ...]
    """Where each part ends."""
    times_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    prompt: np.ndarray[tuple[int], np.dtype[np.float64]]
    output: np.ndarray[tuple[int], np.dtype[np.float64]]
    each: np.ndarray[tuple[int], np.dtype[np.float64]]
    """Requests that each row stands for: the scale of its part."""

    def profile(self, start_s: float, end_s: float) -> WorkloadProfile | None:
        """Of a window; None where it holds too little. A window over two parts is scaled by their mean."""
        low, high = np.searchsorted(self.times_s, (start_s, end_s))
        if high - low < MIN_REQUESTS:
            return None
        part = slice(int(low), int(high))
        return profile_of_arrays(
            self.times_s[part],
            self.prompt[part],
            self.output[part],
            start_s=start_s,
            end_s=end_s,
            requests_each=float(self.each[part].mean()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What a strategy did before a step."""

    at_s: float
    decision: str
    rule: str
    reason: str
    plan: str
    """Of the step that follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A strategy over the whole trace."""

    strategy: str
    moves: tuple[Move, ...]
    goodput_per_s: tuple[float, ...]
    """Of each step: requests per second within the limits, losses of switches taken off."""
    switches: int
    lost_requests: float
    """In switches."""
    restart_gpu_s: float
    """GPU-seconds in which restarted GPUs served nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """All strategies over one trace."""

    study: Study
    trace: Trace
    step_s: float
    window_s: float
    load_frac: float
    first_plan: str
    starts_s: tuple[float, ...]
    """Of the steps."""
    offered_per_s: tuple[float, ...]
    walks: tuple[Walk, ...]

    def requests(self, walk: Walk) -> float:
        """Requests within the limits over the whole trace."""
        return sum(walk.goodput_per_s) * self.step_s

    @property
    def offered(self) -> float:
        """Requests over the whole trace."""
        return sum(self.offered_per_s) * self.step_s


def join(study: Study, logs: Sequence[TrafficLog], load_frac: float) -> Trace:
    """Logs one after the other, each scaled so that its mean rate is this share of what the best plan takes of it.

    Raises:
        InputError: a log was refused, or nothing can serve it within the limits.
    """
    times, prompts, outputs, each, ends, at = [], [], [], [], [], 0.0
    scales: dict[str, float] = {}
    for log in logs:
        if log.refusal is not None or log.columns is None:
            raise InputError.single(log.source, f"cannot be replayed: {log.refusal or 'it holds no requests'}")
        if log.fingerprint not in scales:
            profile = log.profile()
            scales[log.fingerprint] = load_frac * most_per_s(study, log.source, profile) / profile.rate.mean_per_s
        held = log.columns
        times.append(held.times_s - log.start_s + at)
        prompts.append(held.prompt.astype(np.float64))
        outputs.append(held.output.astype(np.float64))
        each.append(np.full(held.times_s.size, scales[log.fingerprint] * held.requests_each))
        at += log.end_s - log.start_s
        ends.append(at)
    return Trace(
        names=tuple(log.source for log in logs),
        ends_s=tuple(ends),
        times_s=np.concatenate(times),
        prompt=np.concatenate(prompts),
        output=np.concatenate(outputs),
        each=np.concatenate(each),
    )


def most_per_s(study: Study, source: str, profile: WorkloadProfile) -> float:
    """Requests per second of such traffic that the best plan takes within the limits."""
    own = with_traffic(study, profile, load="mean")
    best = best_plan(own)
    most = None if best is None else at_capacity(own, best)
    if most is None:
        raise InputError.single(source, "no plan of the study serves such traffic within the limits at any load")
    return most.metrics["requests_per_s"]


class Player:
    """The steps of a trace, with what plans do in each, computed once."""

    def __init__(self, study: Study, trace: Trace, *, step_s: float, window_s: float) -> None:
        count = int(trace.ends_s[-1] // step_s)
        if count < 2:
            raise InputError.single("--step", f"must fit the trace at least twice, {trace.ends_s[-1]:.0f} s long")
        self.study, self.trace, self.step_s, self.window_s = study, trace, step_s, window_s
        self.starts = [k * step_s for k in range(count)]
        self.profiles = [trace.profile(s, s + step_s) for s in self.starts]
        self._goodput: dict[tuple[int, str], float] = {}
        self._best: dict[tuple[float, float], PlanResult | None] = {}

    def offered_per_s(self, k: int) -> float:
        """Requests per second that arrive in a step."""
        profile = self.profiles[k]
        return 0.0 if profile is None else profile.rate.mean_per_s

    def step_study(self, k: int) -> Study | None:
        """The study under a step's traffic at its mean rate; None: hardly any came."""
        profile = self.profiles[k]
        return None if profile is None else with_traffic(self.study, profile, load="mean")

    def goodput_per_s(self, k: int, plan: PlanResult) -> float:
        """What a plan serves of a step within the limits."""
        key = (k, launch_of(plan))
        if key not in self._goodput:
            own = self.step_study(k)
            most = None if own is None else at_capacity(own, plan)
            self._goodput[key] = 0.0 if most is None else min(most.metrics["requests_per_s"], self.offered_per_s(k))
        return self._goodput[key]

    def best(self, start_s: float, end_s: float) -> PlanResult | None:
        """The best plan for a window; None: too little came, or nothing can be launched."""
        key = (start_s, end_s)
        if key not in self._best:
            profile = self.trace.profile(start_s, end_s)
            self._best[key] = None if profile is None else best_plan(on_traffic(self.study, profile))
        return self._best[key]

    def lost(self, k: int, before: PlanResult, after: PlanResult) -> tuple[float, float]:
        """Requests lost, and GPU-seconds spent, in a switch at the beginning of a step."""
        own = self.step_study(k)
        if own is None:
            return 0.0, 0.0
        own = replace(own, baseline=as_baseline(before))
        cost = compare(own, candidate=after, scenarios=False).switch
        return (0.0, 0.0) if cost is None else (cost.lost_requests, cost.gpu_s)


def launch_of(plan: PlanResult) -> str:
    """Plans of one name are started by the same command."""
    knobs = plan.knobs
    return f"{plan.plan} {knobs.max_num_batched_tokens} {knobs.weight_dtype} {knobs.kv_dtype}"


def as_baseline(plan: PlanResult) -> Baseline:
    """A plan as what runs today."""
    return Baseline(
        plan=plan.plan,
        engine=plan.engine,
        concurrency=None,
        max_num_batched_tokens=plan.knobs.max_num_batched_tokens,
        weight_dtype=plan.knobs.weight_dtype,
        kv_dtype=plan.knobs.kv_dtype,
    )


def replay(
    study: Study,
    logs: Sequence[TrafficLog],
    *,
    step_s: float,
    window_s: float,
    load_frac: float,
    from_baseline: bool = False,
    progress: Progress | None = None,
) -> Replay:
    """Walk joined logs with every strategy.

    Args:
        study: from `load_study`.
        logs: in the order in which they follow each other.
        step_s: how often is decided, and how long a step lasts.
        window_s: of each decision.
        load_frac: mean load of each log, as a share of what the best plan takes of it.
        from_baseline: whether all begin with the study's baseline; else with the best plan for the first step.
        progress: called with (steps done, steps in all) over all strategies.

    Raises:
        InputError: a log cannot be replayed, or the trace is shorter than two steps.
    """
    trace = join(study, logs, load_frac)
    player = Player(study, trace, step_s=step_s, window_s=window_s)
    first = _first(player, from_baseline=from_baseline)
    count, done = len(player.starts), 0

    def told() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, count * len(STRATEGIES))

    walks = tuple(_walk(player, name, first, told, known=not from_baseline) for name in STRATEGIES)
    return Replay(
        study=study,
        trace=trace,
        step_s=step_s,
        window_s=window_s,
        load_frac=load_frac,
        first_plan=first.plan,
        starts_s=tuple(player.starts),
        offered_per_s=tuple(player.offered_per_s(k) for k in range(count)),
        walks=walks,
    )


def _first(player: Player, *, from_baseline: bool) -> PlanResult:
    if not from_baseline:
        found = player.best(0.0, player.step_s)
        if found is None:
            raise InputError.single("--traffic", "the first step holds too little traffic to choose a plan for")
        return found
    profile = player.profiles[0]
    if profile is None:
        raise InputError.single("--traffic", "the first step holds too little traffic to score the baseline on")
    result = compare(on_traffic(player.study, profile), scenarios=False).current.result
    if result is None:
        raise InputError.single("$.baseline.plan", "is forbidden by the engine's rules: nothing to begin with")
    return result


def _walk(player: Player, strategy: str, first: PlanResult, told: Callable[[], None], *, known: bool) -> Walk:
    chooser = Retuner(player, first, known=known) if strategy == OURS else None
    current, moves, goodput = first, [], []
    switches, lost, spent = 0, 0.0, 0.0
    for k, start in enumerate(player.starts):
        chosen, move = current, Move(at_s=start, decision="keep", rule="", reason="", plan=current.plan)
        if strategy == ORACLE:
            chosen = player.best(start, start + player.step_s) or current
            # the plan that could take the most need not be the one that serves most of a light load
            chosen = max((chosen, current), key=lambda p: player.goodput_per_s(k, p))
        elif k and strategy == ALWAYS:
            chosen = player.best(max(start - player.window_s, 0.0), start) or current
        elif k and chooser is not None:
            chosen, move = chooser.decide(start)
        served = player.goodput_per_s(k, chosen)
        if not same_launch(current, chosen):
            switches += 1
            move = replace(move, decision=SWITCH, plan=chosen.plan)
            if strategy != ORACLE:
                requests, gpu_s = player.lost(k, current, chosen)
                lost, spent = lost + requests, spent + gpu_s
                served = max(served - requests / player.step_s, 0.0)
        current = chosen
        moves.append(replace(move, plan=chosen.plan))
        goodput.append(served)
        told()
    return Walk(
        strategy=strategy,
        moves=tuple(moves),
        goodput_per_s=tuple(goodput),
        switches=switches,
        lost_requests=lost,
        restart_gpu_s=spent,
    )


class Retuner:
    """`autotune retune` without a disk: the same drift, the same decision, the same memory of switches."""

    def __init__(self, player: Player, first: PlanResult, *, known: bool) -> None:
        """`known`: whether the first plan was chosen for the first step's traffic, or nobody ever looked."""
        self.player, self.current = player, first
        self.reference = player.trace.profile(0.0, player.step_s) if known else None
        self.history: list[PastSwitch] = []
        self.warm_from_s = 0.0
        self.tuned = 0

    def decide(self, now_s: float) -> tuple[PlanResult, Move]:
        """The plan for what follows, and why."""
        start = max(now_s - self.player.window_s, 0.0, self.warm_from_s)
        profile = self.player.trace.profile(start, now_s)
        if profile is None:
            return self.current, Move(
                at_s=now_s, decision="refuse", rule="input", reason="too little traffic", plan=self.current.plan
            )
        drift = None if self.reference is None else drift_of(profile, self.reference)
        changed = drift is None or drift.drifted
        study = replace(on_traffic(self.player.study, profile), baseline=as_baseline(self.current))
        decision, found = judge(
            study,
            now_s=now_s,
            refusal=None,
            changed=changed,
            history=self.history,
            also=[past.from_plan for past in self.history],
        )
        self.tuned += found is not None
        reason = decision.reason if drift is None or not changed else f"{drift.reason}; {decision.reason}"
        if decision.rule in SETTLED:
            self.reference = profile
        if decision.decision == SWITCH and found is not None and found.candidate is not None:
            result = found.candidate.result
            if result is not None:
                self.history.append(PastSwitch(at_s=now_s, from_plan=self.current.plan, to_plan=result.plan))
                self.current, self.reference = result, profile
                switch = self.player.study.switch
                self.warm_from_s = now_s + switch.startup_s[result.engine] + switch.warmup_s
        return self.current, Move(
            at_s=now_s, decision=decision.decision, rule=decision.rule, reason=reason, plan=self.current.plan
        )
