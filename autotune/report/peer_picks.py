"""A peer's ranking beside ours, as a JSON document and as a report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from autotune.comparison.aiconfigurator import MEASURED, PeerPick
from autotune.comparison.peer_picks import ExplainedPick, Explanation
from autotune.report.document import finite
from autotune.report.study_words import command, study_headline
from autotune.report.text_blocks import Block, Report, Table, text_table
from autotune.report.vocabulary.titles import broken
from autotune.report.vocabulary.words import percent, signed
from autotune.scoring.gpu_time import gpu_s_per_request, operator_title
from autotune.scoring.plan_name import full_name
from autotune.text.numbers import number
from autotune.tuning import PlanResult

FIGURES = ("ttft_s", "tpot_s", "output_tokens_per_s_per_gpu")
TOP_OPERATORS = 5
"""Operators of a pick that a terminal shows; the document has all."""
MOST_NAMED = 4
"""Operators without a measurement that are named."""


def explanation_document(found: Explanation) -> dict[str, Any]:
    """What `autotune explain --json` writes: of every pick the peer's figures, ours, and what they consist of."""
    study, first = found.study, next(iter(found.result.ranked), None)
    return finite(
        {
            "study": study.name,
            "against": "aiconfigurator",
            "differs": list(found.differs),
            "plans": len(found.result.ranked),
            "first": None if first is None else {"name": full_name(found.study, first), **_figures(first)},
            "picks": [_pick(found, pick) for pick in found.picks],
        }
    )


def _figures(plan: PlanResult) -> dict[str, Any]:
    return {name: plan.metrics[name] for name in FIGURES} | {"in_flight": plan.knobs.concurrency}


def _pick(found: Explanation, own: ExplainedPick) -> dict[str, Any]:
    pick, ours = own.pick, own.at_our_load
    return {
        "mode": pick.mode,
        "peer_rank": pick.rank,
        "plan": own.plan,
        "name": own.plan if ours is None else full_name(found.study, ours),
        "rank": own.rank,
        "replicas": own.replicas,
        "idle_gpus": own.idle_gpus,
        "refused": own.refused,
        "breaks": [] if ours is None else [broken(v) for v in ours.violations],
        "p_meets": None if ours is None else ours.p_meets,
        "peer": {
            **{name: getattr(pick, name) for name in FIGURES},
            "in_flight": own.replicas * pick.in_flight,
            "gpu_s_per_request": _peer_gpu_s(pick),
        },
        "at_its_load": None if own.at_its_load is None else _figures(own.at_its_load),
        "at_our_load": None if ours is None else _figures(ours),
        "operators": _operators(own.at_its_load or ours),
        "against_first": [asdict(row) for row in own.time],
        "why": list(_why(own)),
        "not_measured_by_peer": [name for name, source in pick.sources.items() if source != MEASURED],
        "operators_of_peer": len(pick.sources),
    }


def _peer_gpu_s(pick: PeerPick) -> float | None:
    """GPU-seconds of a request by the peer's throughput."""
    rate = pick.output_tokens_per_s_per_gpu
    return pick.osl / rate if rate else None


def _operators(plan: PlanResult | None) -> list[dict[str, Any]]:
    """GPU-seconds of a request by phase and operator under our model, the largest first."""
    parts = {} if plan is None else gpu_s_per_request(plan)
    rows = [{"phase": phase, "operator": group, "gpu_s": s} for (phase, group), s in parts.items() if s]
    return sorted(rows, key=lambda row: -abs(float(row["gpu_s"])))


def _why(own: ExplainedPick) -> tuple[str, ...]:
    """Why the two differ on a pick, as sentences."""
    pick, ours, theirs = own.pick, own.at_our_load, own.at_its_load
    if own.refused:
        return (f"We have no figures of it: {own.refused}.",)
    said = []
    if own.idle_gpus:
        said.append(f"Whole replicas of it leave {own.idle_gpus} GPUs idle; it is scored on the others.")
    if theirs is not None:
        parts = [
            f"{title} {signed(theirs.metrics[name] / getattr(pick, name) - 1.0)}"
            for title, name in (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("throughput", FIGURES[2]))
            if getattr(pick, name)
        ]
        load = own.replicas * pick.in_flight
        said.append(f"With its own {load:,} requests in flight we predict, against the peer: {', '.join(parts)}.")
        broke = [broken(v) for v in theirs.violations]
        said += [f"At that load it breaks by our figures: {'; '.join(broke)}."] if broke else []
    if ours is not None:
        broke = [broken(v) for v in ours.violations]
        said += [f"At no load does it keep every limit: {'; '.join(broke)}."] if broke else []
        if own.why:
            said.append(f"Our first plan against it: {'; '.join(own.why)}.")
    unmeasured = [name for name, source in pick.sources.items() if source != MEASURED]
    if unmeasured:
        named = ", ".join(unmeasured[:MOST_NAMED]) + (" and others" if unmeasured[MOST_NAMED:] else "")
        all_of_them, measured = len(pick.sources), len(pick.sources) - len(unmeasured)
        said.append(f"The peer measured {measured} of its {all_of_them} operators; not {named}.")
    return tuple(said)


def explanation_report(found: Explanation) -> Report:
    """The peer's picks with both predictions, then pick by pick why they differ, operator by operator."""
    study, ranked = found.study, found.result.ranked
    agreed = [own for own in found.picks if own.rank == 1]
    head = f"The peer's first pick of each kind: {_places(found)}."
    if agreed:
        head = f"The first plan is the peer's too, its {agreed[0].pick.mode} rank {agreed[0].pick.rank}."
    first = next(iter(ranked), None)
    lines = [f"{said[:1].upper()}{said[1:]}: figures cannot be held against each other." for said in found.differs]
    if first is not None:
        lines.append(f"Our first of {len(ranked):,}: {full_name(found.study, first)}, {_shown(first)}.")
    return Report(
        headline=study_headline(study, "AIConfigurator's ranking beside ours"),
        reason=head,
        tone="good" if agreed else "open",
        lines=tuple(lines),
        blocks=(
            Block(title="Its picks, by its order (peer / ours at the same load)", table=_table(found)),
            *(block for own in found.picks for block in _blocks(found, own)),
            Block(title="Next", lines=(command(study, "tune"), command(study, "evaluate", "--plan", "best"))),
        ),
    )


def _places(found: Explanation) -> str:
    firsts = [own for own in found.picks if own.pick.rank == 1]
    return ", ".join(f"{own.pick.mode} {_place(found, own)}" for own in firsts)


def _place(found: Explanation, own: ExplainedPick) -> str:
    if own.refused:
        return "not scored here"
    if own.rank is None:
        return "leaves GPUs idle" if own.idle_gpus else "breaks a limit here"
    return f"rank {own.rank:,} of {len(found.result.ranked):,} here"


def _shown(plan: PlanResult) -> str:
    m = plan.metrics
    rate = number(m[FIGURES[2]])
    return f"{rate} output tok/s/GPU, TTFT {number(m['ttft_s'])} s, TPOT {number(m['tpot_s'] * 1e3)} ms"


def _short(found: Explanation, own: ExplainedPick) -> str:
    return own.plan if own.at_our_load is None else full_name(found.study, own.at_our_load)


def _table(found: Explanation) -> Table:
    header = ("", "#", "plan", "our rank", "out tok/s/GPU", "TPOT ms", "TTFT s", "in flight", "ours, best load")
    rows = []
    for own in found.picks:
        pick, same = own.pick, own.at_its_load
        pairs = [(FIGURES[2], 1.0), ("tpot_s", 1e3), ("ttft_s", 1.0)]
        shown = [
            f"{number(getattr(pick, name) * factor)} / {number(None if same is None else same.metrics[name] * factor)}"
            for name, factor in pairs
        ]
        best = own.at_our_load
        rows.append(
            [
                pick.mode,
                f"{pick.rank}",
                _short(found, own),
                "–" if own.rank is None else f"{own.rank:,}",
                *shown,
                f"{own.replicas * pick.in_flight:,}",
                "–" if best is None else f"{number(best.metrics[FIGURES[2]])} at {best.knobs.concurrency:,}",
            ]
        )
    return text_table(header, rows, texts=(0, 2))


def _blocks(found: Explanation, own: ExplainedPick) -> list[Block]:
    """Why a pick's figures differ, and what its time consists of."""
    pick, plan = own.pick, own.at_its_load or own.at_our_load
    table = None
    whole = _peer_gpu_s(pick)
    if plan is not None:
        parts = _operators(plan)
        total = sum(float(row["gpu_s"]) for row in parts)
        rest = sum(float(row["gpu_s"]) for row in parts[TOP_OPERATORS:])
        rows = [
            [operator_title(row["operator"], row["phase"]), number(row["gpu_s"]), percent(row["gpu_s"] / total)]
            for row in parts[:TOP_OPERATORS]
        ]
        rows += [["All other operators", number(rest), percent(rest / total)]] if parts[TOP_OPERATORS:] else []
        rows.append(["A request, ours", number(total), "100%"])
        rows += [["A request, the peer's", number(whole), percent(whole / total)]] if whole else []
        table = text_table(("GPU-seconds of a request, by our model", "GPU-s", "share"), rows)
    title = f"{pick.mode} {pick.rank}: {_short(found, own)}, {_place(found, own)}"
    return [Block(title=title, table=table, lines=_why(own))]
