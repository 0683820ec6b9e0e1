"""A recorded trace, walked step by step: what re-tuning would have done, beside never, always, and knowing the future.

All strategies begin with the same plan. A switch is the rolling change that `[switch]` describes, replica by replica,
and a next one waits for its end. The oracle has, in every step, the plan that serves most of it among the best plan
for the step and all that any strategy came upon, and switches for nothing: a bound that no strategy exceeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autotune.comparison.compare_plans import compare, on_traffic
from autotune.retuning.decide import SETTLED, SWITCH, PastSwitch, as_baseline
from autotune.retuning.decide_window import judge, on_own_cluster
from autotune.retuning.replay_steps import Player, overlaps
from autotune.retuning.replay_trace import Trace, join
from autotune.retuning.window import drift_of
from autotune.study import Study
from autotune.traffic.traffic_log import TrafficLog
from autotune.tuning import PlanResult
from costmodel.errors import InputError

OURS, NEVER, ALWAYS, ORACLE = "retune", "never", "always", "oracle"
STRATEGIES = {
    OURS: "as autotune retune decides",
    NEVER: "keep the first plan",
    ALWAYS: "switch whenever the model ranks another plan first",
    ORACLE: "know each step's traffic, switch for nothing",
}
"""In the order of their walks: the oracle last, when all plans are known that any of the others came upon."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What a strategy did before a step."""

    at_s: float
    decision: str
    rule: str
    reason: str
    plan: str
    """Of the step that follows."""


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
        study = replace(on_traffic(self.player.study, profile), baseline=as_baseline(self.current.launch))
        study = replace(study, workload=replace(study.workload, recorded=self.player.requests(start, now_s)))
        decision, found = judge(
            study,
            now_s=now_s,
            refusal=None,
            changed=changed,
            history=self.history,
            find=lambda _: self.player.best(start, now_s, tuple(past.before.plan for past in self.history)),
        )
        self.tuned += found is not None
        reason = decision.reason if drift is None or not changed else f"{drift.reason}; {decision.reason}"
        if decision.rule in SETTLED:
            self.reference = profile
        if decision.decision == SWITCH and found is not None and found.candidate is not None:
            result = found.candidate.result
            if result is not None:
                self.history.append(
                    PastSwitch(at_s=now_s, before=self.current.launch, after=result.launch, profile=profile)
                )
                self.current, self.reference = result, profile
                switch = self.player.study.switch
                self.warm_from_s = now_s + switch.startup_s[result.engine] + switch.warmup_s
        return self.current, Move(
            at_s=now_s, decision=decision.decision, rule=decision.rule, reason=reason, plan=self.current.plan
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A strategy over the whole trace."""

    strategy: str
    moves: tuple[Move, ...]
    goodput_per_s: tuple[float, ...]
    """Of each step: requests per second within the limits, switches and what they cost counted in."""
    switched_at_s: tuple[float, ...]
    lost_requests: float
    """In switches: of what the plan before would have served in that time."""
    gpu_s: float
    """GPU-seconds of the plans."""
    restart_gpu_s: float
    """Of those, in which restarted GPUs served nothing."""

    @property
    def switches(self) -> int:
        """How many."""
        return len(self.switched_at_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """All strategies over one trace."""

    study: Study
    trace: Trace
    step_s: float
    window_s: float
    load_frac: float | None
    """None: the traffic as it came."""
    counted: bool
    """Whether requests within the limits were counted in simulation; else they follow from means."""
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


def replay(  # noqa: PLR0913  # how a trace is cut and begun
    study: Study,
    logs: Sequence[TrafficLog],
    *,
    step_s: float,
    window_s: float,
    load_frac: float | None,
    from_baseline: bool = True,
    progress: Progress | None = None,
) -> Replay:
    """Walk joined logs with every strategy.

    Args:
        study: from `load_study`.
        logs: in the order in which they follow each other.
        step_s: how often is decided, and how long a step lasts.
        window_s: of each decision.
        load_frac: mean load of each log, as a share of what the best plan takes of it; None: as it came.
        from_baseline: whether all begin with the study's baseline; else with the best plan for the first step.
        progress: called with (steps done, steps in all) over all strategies.

    Raises:
        InputError: a log cannot be replayed, or the trace is shorter than two steps.
    """
    study = on_own_cluster(study)
    trace = join(study, logs, load_frac)
    player = Player(study, trace, step_s=step_s, window_s=window_s)
    first = _first(player, from_baseline=from_baseline)
    count, done = len(player.starts), 0

    def step_done() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, count * len(STRATEGIES))

    walks = tuple(_walk(player, name, first, step_done, known=not from_baseline) for name in STRATEGIES)
    return Replay(
        study=study,
        trace=trace,
        step_s=step_s,
        window_s=window_s,
        load_frac=load_frac,
        counted=any(player.counted_per_s(k, first) is not None for k in range(count)),
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


def _walk(player: Player, strategy: str, first: PlanResult, step_done: Callable[[], None], *, known: bool) -> Walk:
    retuner = Retuner(player, first, known=known) if strategy == OURS else None
    current, moves = first, []
    plans: list[PlanResult] = []
    for k, start in enumerate(player.starts):
        chosen, move = current, Move(at_s=start, decision="keep", rule="", reason="", plan=current.plan)
        if strategy == ORACLE:
            chosen = _oracle(player, k, current)
        elif k and strategy == ALWAYS:
            chosen = player.best(max(start - player.window_s, 0.0), start) or current
        elif k and retuner is not None:
            chosen, move = retuner.decide(start)
        if current.launch != chosen.launch:
            move = replace(move, decision=SWITCH)
            current = chosen
        moves.append(replace(move, plan=current.plan))
        plans.append(current)
        step_done()
    return _served(player, strategy, first, tuple(moves), plans)


def _oracle(player: Player, k: int, current: PlanResult) -> PlanResult:
    """The plan that serves most of a step; the current one unless another serves more."""
    start = player.starts[k]
    player.best(start, start + player.step_s)
    return max((current, *player.seen.values()), key=lambda plan: player.goodput_per_s(k, plan))


def _served(
    player: Player, strategy: str, first: PlanResult, moves: tuple[Move, ...], plans: Sequence[PlanResult]
) -> Walk:
    """What came of a plan for every step: each switch takes its time, the oracle's none."""
    step = player.step_s
    edges = [*player.starts, player.starts[-1] + step]
    # requests of every step, as if all switches took no time
    goodput = [player.goodput_per_s(k, plan) * step for k, plan in enumerate(plans)]
    current, free_s, lost, spent = first, 0.0, 0.0, 0.0
    switched: list[float] = []
    for move, plan in zip(moves, plans, strict=True):
        if current.launch == plan.launch:
            continue
        change = None if strategy == ORACLE else player.change(max(move.at_s, free_s), current, plan)
        switched.append(move.at_s)
        for segment in () if change is None else change.segments:
            for k, seconds in overlaps(segment, edges):
                serving = player.changing_per_s(k, segment)
                goodput[k] += (serving - player.goodput_per_s(k, plans[k])) * seconds
                lost += max(player.goodput_per_s(k, current) - serving, 0.0) * seconds
        if change is not None:
            spent, free_s = spent + change.gpu_s, change.end_s
        current = plan
    return Walk(
        strategy=strategy,
        moves=moves,
        goodput_per_s=tuple(requests / step for requests in goodput),
        switched_at_s=tuple(switched),
        lost_requests=lost,
        gpu_s=sum(plan.metrics["gpus"] * step for plan in plans),
        restart_gpu_s=spent,
    )
