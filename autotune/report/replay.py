"""A replay as JSON and as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from autotune.report.document import finite
from autotune.report.markdown import markdown_blocks
from autotune.report.text_blocks import Block, table_of, text_table
from autotune.retuning.replay import ORACLE, OURS, STRATEGIES, Replay

STRATEGY_COLUMNS: Mapping[str, Callable[[Any], str]] = {
    "strategy": lambda s: s["strategy"],
    "switches": lambda s: f"{s['switches']} ({'+'.join(map(str, s['switches_by_traffic']))})",
    "SLO attainment": lambda s: _share(s["slo_attainment_frac"]),
    "requests within limits": lambda s: f"{s['goodput_requests']:,.0f}",
    "of the oracle": lambda s: _share(s["goodput_of_oracle_frac"]),
    "lost in switches": lambda s: f"{s['lost_in_switches_requests']:,.0f}",
    "GPU hours": lambda s: f"{s['gpu_hours']:,.1f}",
    "restarting": lambda s: f"{s['gpu_hours_restarting']:,.1f}",
    "GPU h per 1M requests": lambda s: "" if (each := s["gpu_hours_per_million_requests"]) is None else f"{each:,.1f}",
}


def replay_document(found: Replay) -> dict[str, Any]:
    """Strategies side by side, and every move of each."""
    oracle = next(w for w in found.walks if w.strategy == ORACLE)
    best = found.requests(oracle)
    return finite(
        {
            "study": found.study.name,
            "traffic": [{"source": n, "ends_s": e} for n, e in zip(found.trace.names, found.trace.ends_s, strict=True)],
            "step_s": found.step_s,
            "window_s": found.window_s,
            "load_frac": found.load_frac,
            "counted": found.counted,
            "first_plan": found.first_plan,
            "requests": found.offered,
            "starts_s": list(found.starts_s),
            "offered_per_s": list(found.offered_per_s),
            "strategies": [
                {
                    "strategy": w.strategy,
                    "is": STRATEGIES[w.strategy],
                    "switches": w.switches,
                    "switches_by_traffic": _by_part(found, w.switched_at_s),
                    "slo_attainment_frac": _ratio(found.requests(w), found.offered),
                    "goodput_requests": found.requests(w),
                    "goodput_of_oracle_frac": _ratio(found.requests(w), best),
                    "lost_in_switches_requests": w.lost_requests,
                    "gpu_hours": w.gpu_s / 3600.0,
                    "gpu_hours_restarting": w.restart_gpu_s / 3600.0,
                    "gpu_hours_per_million_requests": _ratio(w.gpu_s / 3600.0 * 1e6, found.requests(w)),
                    "goodput_per_s": list(w.goodput_per_s),
                    "moves": [
                        {"at_s": m.at_s, "decision": m.decision, "rule": m.rule, "reason": m.reason, "plan": m.plan}
                        for m in w.moves
                    ],
                }
                for w in found.walks
            ],
        }
    )


def _ratio(value: float, reference: float) -> float | None:
    return value / reference if reference else None


def _by_part(found: Replay, times_s: Sequence[float]) -> list[int]:
    """Switches that were decided on in each log of the trace."""
    edges = (0.0, *found.trace.ends_s)
    last = len(edges) - 2
    return [
        sum(low <= at and (at < high or i == last) for at in times_s) for i, (low, high) in enumerate(pairwise(edges))
    ]


def replay_markdown(document: Mapping[str, Any]) -> str:
    """As Markdown, without a title of its own."""
    return "\n".join(markdown_blocks(replay_blocks(document))).lstrip("\n") + "\n"


def replay_blocks(document: Mapping[str, Any]) -> list[Block]:
    """What each strategy came to, and what `retune` decided."""
    parts = ", ".join(f"{PurePath(t['source']).name} to {t['ends_s'] / 60:.0f} min" for t in document["traffic"])
    scaled = "as it came"
    if document["load_frac"] is not None:
        scaled = f"each scaled to {document['load_frac']:.0%} of what the best plan takes of it"
    judged = "what a plan cannot take within the limits is turned away"
    if document["counted"]:
        judged = "every request is simulated, and those within the limits are counted"
    lines = (
        f"{document['requests']:,.0f} requests: {parts}; {scaled}",
        f"a decision every {document['step_s'] / 60:g} min on the last {document['window_s'] / 60:g} min",
        f"all begin with {document['first_plan']}; {judged}",
        "switches: in all (in each log); SLO attainment: requests served within the limits, of all that came",
        *(f"{s['strategy']}: {s['is']}" for s in document["strategies"]),
    )
    ours = next(s for s in document["strategies"] if s["strategy"] == OURS)
    moves = [
        (f"{m['at_s'] / 60:.0f}", m["decision"], m["rule"], m["plan"], m["reason"]) for m in ours["moves"] if m["rule"]
    ]
    decided = text_table(("minute", "decision", "rule", "plan from then", "because"), moves, texts=(1, 2, 3, 4))
    name = document["study"]
    return [
        Block(title=f"{name}: strategies", table=table_of(document["strategies"], STRATEGY_COLUMNS), lines=lines),
        Block(title=f"{name}: what retune decided", table=decided),
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
