"""The ranked table and what stands below it, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotune.engines import RULES
from autotune.report.clusters import print_clusters, table_name
from autotune.report.document import assumptions, baseline_rank, versus
from autotune.report.html.verdict import tune_verdict
from autotune.report.vocabulary.words import plan_name
from autotune.scoring.limits import JOINT_PROBABILITY
from autotune.space import short_plan
from autotune.text.numbers import figure, number
from autotune.tuning import PlanResult, TuneResult, Violation
from autotune.tuning.answer_study import BaselineResult
from costmodel.estimate.normal import Z90

RULE_TEXTS = {rule.name: rule.text for rule in RULES}


def print_tune(console: Console, result: TuneResult, *, top: int) -> None:
    """Table of the best plans and the baseline, then counts, reasons and assumptions."""
    study = result.study
    console.print(
        f"[bold]{escape(study.name)}[/]: {escape(study.arch.name)} on {study.cluster.gpus} x "
        f"{escape(study.cluster.gpu.name)}, engine {study.engine}; ranked by {study.objective.metric} "
        f"({study.objective.direction})"
    )
    shown = result.ranked if top == 0 else result.ranked[:top]
    if result.ranked:
        _print_verdict(console, result)
        console.print(_table(result, shown))
        _print_confidence(console, result)
    else:
        _print_nothing_feasible(console, result, top)
    if result.baseline is not None:
        _print_baseline(console, result, result.baseline)
    print_clusters(console, result)
    _print_counts(console, result)
    _print_assumptions(console, result)
    if result.ranked:
        _print_next(console, result)


def _print_verdict(console: Console, result: TuneResult) -> None:
    """What to do, in the words of the HTML report."""
    several = len({p.engine for p in result.ranked}) > 1
    name = plan_name(result.ranked[0], dense=not result.study.arch.is_moe, several_engines=several)
    verdict = tune_verdict(result, name)
    colour = {"good": "green", "open": "yellow"}.get(verdict.kind, "red")
    console.print(f"[bold {colour}]{escape(verdict.headline)}[/]", highlight=False, soft_wrap=True)
    # the last line counts plans, as the lines below the table do
    for line in verdict.lines[:-1]:
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)


def _table(result: TuneResult, shown: tuple[PlanResult, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    dense = not result.study.arch.is_moe
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("plan", no_wrap=True, overflow="ellipsis", min_width=16)
    titles = ["in flight", "chunk", "tok/s/GPU", "out/s/GPU", "tok/s", "TTFT s", "TPOT ms", "P(meets)", "mem", "GPU"]
    titles += ["USD/Mtok"] if priced(result) else []
    for title in (*titles, "bottleneck", "vs base", "P(> base)"):
        table.add_column(title, justify="left" if title == "bottleneck" else "right", no_wrap=True)
    baseline = result.baseline
    base = None if baseline is None else baseline.result
    sure = result.confidence
    rows = [(f"{'≈' if i > 1 and sure[p.plan].among_best else ''}{i}", p, "") for i, p in enumerate(shown, start=1)]
    if baseline is not None and base is not None:
        place = baseline_rank(baseline, result)
        rows = [(r, p, "green" if base.plan == p.plan else s) for r, p, s in rows]
        rows.append((f"base {place or '✗'}", base, "bold cyan"))
    several = len({p.engine for p in result.ranked}) > 1
    for rank, plan, style in rows:
        name = table_name(plan, dense=dense)
        table.add_row(rank, f"{plan.engine}: {name}" if several else name, *_cells(result, plan, base), style=style)
    return table


def _cells(result: TuneResult, plan: PlanResult, base: PlanResult | None) -> tuple[str, ...]:
    m = plan.metrics
    metric = result.study.objective.metric
    change = versus(plan, base).get(f"{metric}_frac")
    known = result.confidence.get(plan.plan)
    better = None if known is None else known.p_better_than_baseline
    return (
        f"{plan.knobs.concurrency:,}",
        f"{plan.knobs.max_num_batched_tokens:,}",
        number(m["total_tokens_per_s_per_gpu"]),
        number(m["output_tokens_per_s_per_gpu"]),
        number(m["total_tokens_per_s"]),
        f"{m['ttft_longest_s']:.2f}",
        f"{m['tpot_s'] * 1e3:.1f}",
        f"{plan.p_meets:.0%}",
        f"{m['memory_util_frac']:.0%}",
        f"{m['gpu_util_frac']:.0%}",
        *([_usd(m)] if priced(result) else []),
        plan.breakdown["bottleneck"],
        "" if change is None or plan is base else f"{change:+.1%}",
        "" if better is None or plan is base else f"{better:.0%}",
    )


def priced(result: TuneResult) -> bool:
    """Whether any plan's GPUs have a price."""
    return any("usd_per_million_tokens" in p.metrics for p in (*result.ranked[:1], *result.infeasible[:1]))


def _usd(metrics: Mapping[str, float]) -> str:
    cost = metrics.get("usd_per_million_tokens")
    return "" if cost is None else f"{cost:,.3f}"


def _print_confidence(console: Console, result: TuneResult) -> None:
    """How far the first plan stands out, in one line."""
    best = result.ranked[0]
    alike = sum(result.confidence[p.plan].among_best for p in result.ranked) - 1
    others = "1 other plan (≈)" if alike == 1 else f"{alike or 'no'} other plans (≈)"
    m = best.metrics
    ttft, tpot = (math.exp(Z90 * m[name]) for name in ("ttft_log_sd", "tpot_log_sd"))
    console.print(
        f"Of rank 1, 80 % intervals: TTFT {m['ttft_longest_s'] / ttft:.2f} to {m['ttft_longest_s'] * ttft:.2f} s, TPOT "
        f"{m['tpot_s'] * 1e3 / tpot:.1f} to {m['tpot_s'] * 1e3 * tpot:.1f} ms; {others} cannot be told "
        f"apart from it with 90 % confidence.",
        highlight=False,
    )


def _print_nothing_feasible(console: Console, result: TuneResult, top: int) -> None:
    console.print("[bold red]No plan keeps every constraint.[/] The nearest ones, and what they break:")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("plan", "binding constraint", "value", "limit", "over by", "also broken"):
        table.add_column(title, no_wrap=title != "also broken")
    for plan in result.infeasible[: top or None]:
        first, *others = plan.violations
        table.add_row(
            f"{plan.engine}: {table_name(plan, dense=not result.study.arch.is_moe)}",
            first.code,
            f"{figure(first.value)} {first.unit}",
            figure(first.limit),
            f"{first.excess / max(abs(first.limit), 1e-12):.0%}",
            ", ".join(v.code for v in others),
        )
    console.print(table)
    if result.infeasible:
        nearest = result.infeasible[0]
        given = [_give(v) for v in nearest.violations if v.code != JOINT_PROBABILITY]
        console.print(f"To make {nearest.plan} feasible: {'; '.join(given)}.")


def _give(violation: Violation) -> str:
    verb = "lower" if violation.value < violation.limit else "raise"
    return f"{verb} {violation.code} from {figure(violation.limit)} to {figure(violation.value)} {violation.unit}"


def _print_baseline(console: Console, result: TuneResult, baseline: BaselineResult) -> None:
    resolution = baseline.resolution
    dense = not result.study.arch.is_moe
    known = baseline.result
    plan = short_plan(resolution.candidate.layout, dense=dense) if known is None else table_name(known, dense=dense)
    text = f"[bold cyan]baseline[/] {escape(baseline.text)} = {resolution.candidate.engine}: {plan}"
    if baseline.result is None:
        broken = "; ".join(f"{v.rule}: {v.message}" for v in resolution.violations)
        console.print(f"{text}: [red]cannot be launched[/]: {escape(broken)}", highlight=False)
    elif baseline.result.feasible:
        console.print(f"{text}: rank {baseline_rank(baseline, result)} of {len(result.ranked)}", highlight=False)
    else:
        broken = "; ".join(
            f"{v.code} {figure(v.value)} against {figure(v.limit)} {v.unit}" for v in baseline.result.violations
        )
        console.print(f"{text}: [red]infeasible[/]: {escape(broken)}", highlight=False)
    if resolution.alternatives:
        several = {c.engine for c in resolution.alternatives} != {resolution.candidate.engine}
        others = ", ".join(
            f"{c.engine}: {short_plan(c.layout)}" if several else short_plan(c.layout)
            for c in resolution.alternatives[:4]
        )
        more = f" and {len(resolution.alternatives) - 4} more" if len(resolution.alternatives) > 4 else ""
        console.print(f"  could also have meant: {others}{more}", highlight=False)


def _print_next(console: Console, result: TuneResult) -> None:
    """The commands that follow from the answer."""
    best, baseline = result.ranked[0], result.baseline
    study = escape(str(result.study.path))
    steps = [f"autotune evaluate {study} --plan {best.plan}"]
    if baseline is not None and baseline.result is not None and baseline.result.plan != best.plan:
        steps = [f"autotune compare {study} (what the switch costs and when it has paid)", *steps]
    if best.pools is None:
        steps.append(f"autotune export {study} --plan best --target {best.engine} --out launch")
    console.print(f"next (with the same --set, if any): {'; '.join(steps)}", highlight=False, soft_wrap=True)


def _print_counts(console: Console, result: TuneResult) -> None:
    if result.space.enumerated:
        scope = "every valid plan was scored" if result.complete else "sampled: not every plan was scored"
        console.print(
            f"{result.space.enumerated:,} layouts enumerated, {len(result.space.candidates):,} valid, "
            f"{result.feasible_count:,} feasible; {scope} in {result.elapsed_s:.2f} s"
            + ("" if result.storage is None else f" ({result.scored_now:,} now, the rest from the storage)"),
            highlight=False,
        )
    for rule, count in sorted(result.space.rejected.items(), key=lambda item: -item[1]):
        console.print(f"  [dim]rejected {count:>6,}  {rule}: {escape(RULE_TEXTS[rule])}[/]", highlight=False)
    if result.pools is not None:
        found = result.pools
        how = (
            "from the storage"
            if found.joined_points is None
            else f"{found.joined_points:,} pairs of operating points joined, the others dominated, "
            f"in {found.elapsed_s:.2f} s"
        )
        console.print(
            f"disaggregated: {found.plans:,} pairs of pool layouts over every split, all covered ({how}); the best "
            f"{found.kept:,} are in the ranking",
            highlight=False,
        )
    for code, count in sorted(result.infeasible_counts.items(), key=lambda item: -item[1]):
        console.print(f"  [dim]infeasible {count:>4,}  {code} is what binds[/]", highlight=False)


def _print_assumptions(console: Console, result: TuneResult) -> None:
    console.print("[bold]Assumed[/] (the study leaves these open):")
    for text in assumptions(result):
        console.print(f"  - {escape(text)}", highlight=False, soft_wrap=True)
    if result.storage is not None:
        console.print(f"Trials are in {escape(result.storage)}", highlight=False, soft_wrap=True)
