"""`autotune retune` without a disk, on windows of a trace."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotune.comparison.compare_plans import on_traffic
from autotune.retuning.decide import SETTLED, SWITCH, PastSwitch, as_baseline
from autotune.retuning.decide_window import judge
from autotune.retuning.replay_steps import Player
from autotune.retuning.window import drift_of
from autotune.tuning import PlanResult


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
