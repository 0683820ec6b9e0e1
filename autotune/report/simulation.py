"""What `autotune simulate` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autotune.launch.export import export_refusal
from autotune.report.answer import assumed_block
from autotune.report.evaluation_text import next_blocks
from autotune.report.study_words import called, command, launch_steps
from autotune.report.text_blocks import Block, Cell, Column, Line, Report, Row, Table, text_table
from autotune.report.vocabulary.plan_names import name_of_key
from autotune.report.vocabulary.titles import LIMITS, broken
from autotune.scoring.limits import KV_ROOM, MEAN_LATENCIES, OF_SHARES, SERVED_WITHIN, hard_limit
from autotune.scoring.plan_result import plan_key
from autotune.simulation.percentile_limits import TITLES
from autotune.simulation.report_simulation import IN_STEP
from autotune.space.pooled_planstring import is_pooled
from autotune.study import Study, own_option_sentence
from autotune.study.sections import REQUEST_LATENCIES
from autotune.text.numbers import number, probability
from autotune.tuning import BaselineResult

LATENCIES = {
    "ttft": ("TTFT", "ms", 1e3),
    "tpot": ("TPOT", "ms", 1e3),
    "itl": ("ITL", "ms", 1e3),
    "e2e": ("End to end", "s", 1.0),
}
"""Latency -> title, unit, factor from seconds."""


NOTHING = "–"
"""In place of a figure that no request has, as of the tokens after the first where outputs are one token."""
BRIEF = ("latencies", "limits", "service", "next")
"""Blocks that a terminal shows without --verbose."""


def infeasible_document(study: Study, named: BaselineResult, *, no_room: str = "") -> dict[str, Any]:
    """What `autotune simulate` says of a plan that cannot run: what it breaks, in place of what requests meet.

    Args:
        study: from `load_study`.
        named: the plan, which breaks a rule of its engine or a limit that is no matter of load.
        no_room: why none of the requests fits in its KV cache, where the study's own longest one would.
    """
    result, found = named.result, named.resolution
    hard = [] if result is None else [v for v in result.violations if hard_limit(v.code)]
    rules = [asdict(v) for v in found.violations] + ([{"rule": KV_ROOM, "message": no_room}] if no_room else [])
    as_read = named.text if is_pooled(named.text) else plan_key(found.candidate)
    return {
        "study": study.name,
        "plan": as_read if result is None else result.plan,
        "feasible": False,
        "kept": False,
        "reason": "; ".join((*(f"{r['rule']}: {r['message']}" for r in rules), *(broken(v) for v in hard))),
        "violations": [asdict(v) for v in hard],
        "rules_broken": rules,
        "export_refuses": "" if result is None else export_refusal(study, result),
        "assumptions": [
            *study.assumptions,
            *(f"plan: {text}" for text in found.assumed),
            *(f"plan: {text}" for text in own_option_sentence(study, None if result is None else result.own_options)),
        ],
    }


def simulation_report(document: Mapping[str, Any]) -> Report:
    """Percentiles with their likely ranges, the limits, and the loads at which they break; or why there are none."""
    if not document["feasible"]:
        return Report(
            headline=f"{document['study']}: {name_of_key(document['plan'])}, not simulated",
            reason=_reason(document),
            tone="bad",
            lines=refusal_lines(document),
            blocks=(assumed_block(tuple(document["assumptions"])), *next_blocks(document)),
        )
    traffic = document["traffic"]
    load = (
        f"{number(traffic['rate_per_s'])} requests/s"
        if traffic["rate_per_s"] is not None
        else f"{traffic['concurrency']:,} requests in flight"
    )
    return Report(
        headline=f"{document['study']}: {name_of_key(document['plan'])} under {load}, {simulated_words(traffic)}",
        reason=_reason(document),
        tone="good" if document["kept"] else "bad",
        lines=(document["limited_by"], *in_step_lines(document), _run_with(document)),
        blocks=(*simulation_blocks(document), assumed_block(tuple(document["assumptions"])), *next_blocks(document)),
    )


def in_step_lines(document: Mapping[str, Any]) -> tuple[str, ...]:
    """That requests of one length go through the plan together, where they do."""
    return (f"{IN_STEP[0].upper()}{IN_STEP[1:]}.",) if IN_STEP in document["assumptions"] else ()


def simulated_words(traffic: Mapping[str, Any]) -> str:
    """How many requests were simulated, and on what if not on all of the plan."""
    on = f" on {traffic['served_by']}" if traffic["served_by"] else ""
    return f"{traffic['requests']:,} requests simulated{on}"


def _run_with(document: Mapping[str, Any]) -> str:
    """The knobs that the load depends on, in one sentence."""
    knobs = document["knobs"]
    budget, seats = f"{knobs['max_num_batched_tokens']:,} tokens a step", f"{knobs['max_num_seqs']:,} seats"
    if is_pooled(document["plan"]):
        return f"Run with {budget} in the prefill pool and {seats} for each rank of the decode pool."
    return f"Run with {budget} and {seats} for each rank."


def refusal_lines(document: Mapping[str, Any]) -> tuple[str, ...]:
    """What `export` says against a plan that cannot run."""
    return (f"Export refuses it: {document['export_refuses']}.",) if document["export_refuses"] else ()


def _reason(document: Mapping[str, Any]) -> str:
    if not document["feasible"]:
        return f"The plan is infeasible: {document['reason']}."
    within = next((row for row in document["limits"] if row["code"] == SERVED_WITHIN), None)
    others = [row for row in document["limits"] if row is not within]
    over = [limit_title(row["code"]) for row in others if not row["kept"]]
    said = [f"breaks {', '.join(over)}"] if over else []
    if within is not None and not within["kept"]:
        said.append("serves no request within the limits")
    if document["full"]:
        offered, served = document["traffic"]["rate_per_s"], document["served_requests_per_s"]
        said.append(f"serves {number(served)} of the {number(offered)} requests/s that come")
    if said:
        return f"The plan {', and '.join(said)}."
    if within is not None:
        more = ", and keeps every other" if others else ""
        return f"The plan serves {number(100.0 * within['value'])} % of the requests within the limits{more}."
    return "The plan keeps every limit." if document["limits"] else "The study has no limit on latencies."


def next_steps(study: Study, named: BaselineResult) -> list[str]:
    """What holds the plan back, and its launch files."""
    plan = named.result
    name = named.text if plan is None else called(study, plan, is_baseline=named.is_baseline)
    launch = () if plan is None or export_refusal(study, plan) else launch_steps(study, plan, "--plan", name)
    return [line.text for line in (command(study, "evaluate", "--plan", name), *launch)]


def simulation_blocks(document: Mapping[str, Any]) -> tuple[Block, ...]:
    """Latencies, limits, and what is served within them."""
    return _latencies(document), _limits(document), _service(document)


def _latencies(document: Mapping[str, Any]) -> Block:
    found = {name: row for name, row in document["latencies"].items() if row}

    def cell(name: str, statistic: str) -> Cell:
        factor, figure = LATENCIES[name][2], found[name].get(statistic)
        if figure is None:
            return Cell(text="")
        if figure["value"] is None:
            return Cell(text=NOTHING)
        value, low, high = (number(figure[end] * factor) for end in ("value", "low", "high"))
        return Cell(text=value, small=f"{low}–{high}")

    rows = [Row(cells=(Cell(text=s), *(cell(name, s) for name in found))) for s in document["latencies"]["ttft"]]
    titles = (f"{LATENCIES[name][0]} {LATENCIES[name][1]}" for name in found)
    columns = (
        Column(title="over requests", numeric=False),
        *(Column(title=t, numeric=False, ranged=True) for t in titles),
    )
    table = Table(columns=columns, rows=tuple(rows))
    lines = (
        "Beside each figure its likely range (80 %): how sure the estimate is, not how requests vary.",
        "TPOT is of a request, ITL over the gaps between tokens.",
    )
    return Block(key="latencies", title="Latencies", table=table, lines=lines)


def limit_title(code: str) -> str:
    """A limit as it is held against requests: those on means are means over all of them, whatever their prompts."""
    return LIMITS[code.replace("_ms", "_mean_ms") if code in MEAN_LATENCIES else code]


def _limits(document: Mapping[str, Any]) -> Block:
    loads = {row["code"]: row for row in document["breaking_loads"]}
    rows = []
    for row in document["limits"]:
        load = loads.get(row["code"])
        breaks = (
            NOTHING if load is None else "at any load" if load["rate_per_s"] is None else number(load["rate_per_s"])
        )
        value, likely = likely_words(row, "–")
        rows.append(
            (
                limit_title(row["code"]),
                f"{number(row['limit'])} {row['unit']}",
                value,
                likely,
                "yes" if row["kept"] else "no",
                probability(row["p_kept"]),
                breaks,
            )
        )
    header = ("limit", "at", "simulated", "likely range", "kept", "P(kept)", "kept up to/s")
    if not rows:
        return Block(key="limits", title="Limits")
    rising = f"Of the {document['traffic']['requests']:,} requests simulated: the queue grows as long as so many come."
    lines = (*((rising,) if document["full"] else ()), *_of_longest_prompt(document))
    return Block(key="limits", title="Limits", table=text_table(header, rows, texts=(0, 4)), lines=lines)


def likely_words(row: Mapping[str, Any], to: str) -> tuple[str, str]:
    """The figure of a limit and its likely range, `to` between its ends; of what no request has, nothing."""
    if row["value"] is None:
        return NOTHING, NOTHING
    return number(row["value"]), f"{number(row['likely_low'])}{to}{number(row['likely_high'])}"


def _of_longest_prompt(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Where prompts vary, what other commands hold against the limit on the mean TTFT: under percentiles of a log the
    same (`Study.means_of_requests`).
    """
    traffic, codes = document["traffic"], {row["code"] for row in document["limits"]}
    longest, mean = traffic["longest_prompt"], traffic["mean_prompt"]
    alike = traffic["recorded"] and bool(codes - MEAN_LATENCIES - OF_SHARES)
    if round(mean) == longest or "ttft_ms" not in codes or alike:
        return ()
    quantile = traffic["longest_prompt_quantile"]
    which = f"the longest prompt ({longest:,} tokens)"
    if quantile < 1.0:
        which = f"a prompt of {longest:,} tokens, the {100.0 * quantile:g} % quantile,"
    told = f"tune and evaluate hold the mean TTFT of {which} against ttft_ms"
    return (f"{told}: here it is the mean over requests, whose prompts have {mean:,.0f} tokens on average.",)


def _bounds(document: Mapping[str, Any]) -> str:
    """What single requests are held to: `the limits on TTFT (800 ms), TPOT (40 ms)`."""
    bounds = {name: document["request_bounds"][f"{name}_s"] for name in REQUEST_LATENCIES}
    said = [f"{TITLES[name]} ({number(1e3 * bound, 6)} ms)" for name, bound in bounds.items() if bound is not None]
    return f"the limits on {', '.join(said)}" if said else "the limits, of which the study has none on latencies,"


def _service(document: Mapping[str, Any]) -> Block:
    share, low, high = (100.0 * document["attainment"][end] for end in ("value", "low", "high"))
    keeping = (
        f"{number(share)} % of requests keep {_bounds(document)} at once (likely {number(low)} to {number(high)} %)"
    )
    goodput = (
        f"goodput {number(document['goodput_requests_per_s'])} requests/s, "
        f"{number(document['goodput_requests_per_s_per_gpu'])} per GPU, of "
        f"{number(document['served_requests_per_s'])} served"
    )
    busy = f"replicas run steps {document['utilisation']:.0%} of the time; {document['preemptions']:,} preemptions"
    lines: list[str | Line] = [keeping, goodput, busy]
    return Block(key="service", title="Service", lines=tuple(lines))
