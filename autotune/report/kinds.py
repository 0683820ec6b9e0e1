"""Plans with pools beside plans of one kind of replica: the better of each, and what it wins over the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autotune.scoring.pair_words import against
from autotune.tuning import PlanResult, TuneResult

Placed = tuple[int, PlanResult]
"""Rank among all plans that keep every limit, and the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfKinds:
    """The first plan with pools and the first of one kind of replica; None: none of them is among the ranked."""

    pooled: Placed | None
    single: Placed | None
    open_behind: int = 0
    """Plans of the kind that is None that may keep every limit behind all that are ranked: not all were simulated."""

    @classmethod
    def of(cls, result: TuneResult) -> BestOfKinds | None:
        """Of an answer that looked at both kinds and found a plan; None of any other."""
        if result.pools is None or not result.space.enumerated or not result.ranked:
            return None
        places = list(enumerate(result.ranked, start=1))
        pooled, single = (
            next(((rank, p) for rank, p in places if (p.pools is not None) is wanted), None) for wanted in (True, False)
        )
        pools_missing = pooled is None
        behind = 0 if pooled and single else sum((p.pools is not None) is pools_missing for p in result.unplaced)
        return cls(pooled=pooled, single=single, open_behind=behind)

    @property
    def second(self) -> Placed | None:
        """The better plan of the kind that the first plan is not of."""
        both = [placed for placed in (self.pooled, self.single) if placed is not None]
        return max(both, key=lambda placed: placed[0]) if len(both) == 2 else None


def kinds_line(result: TuneResult, *, short: bool = False) -> str:
    """Which kind is ahead, and by what (not where it is `short`); empty where only one was looked at."""
    best = BestOfKinds.of(result)
    if best is None:
        return ""
    if best.open_behind:
        first, others = ("with", "without") if best.single is None else ("without", "with")
        behind = f"{best.open_behind:,} {others} come behind them at best, and were not all simulated."
        return f"Pools: the first {len(result.ranked):,} plans are all {first} separate pools; {behind}"
    if best.pooled is None:
        return "Pools: no plan with separate pools keeps every limit."
    if best.single is None:
        return "Pools: only plans with separate pools keep every limit."
    (rank, plan), pools_lead = best.second or best.single, best.pooled[0] == 1
    if short:
        return f"# {rank:,}: best {'without' if pools_lead else 'with'} pools."
    first, second = ("pools", "one kind of replica") if pools_lead else ("one kind of replica", "pools")
    return f"Best of {first}: # 1; of {second}: # {rank:,}. The first {against(result.study, result.ranked[0], plan)}."


def kinds_document(result: TuneResult) -> dict[str, Any]:
    """The better plan of each kind, by what it is called; empty where only one kind was looked at."""
    best = BestOfKinds.of(result)
    if best is None:
        return {}
    out: dict[str, Any] = {
        name: None if placed is None else {"rank": placed[0], "plan": placed[1].plan}
        for name, placed in (("disaggregated", best.pooled), ("one_kind_of_replica", best.single))
    }
    better = "disaggregated" if result.ranked[0].pools is not None else "one_kind_of_replica"
    return {"best_of_each_kind": {**out, "better": better}}
