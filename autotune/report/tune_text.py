"""The answer of a study on a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.engines import rule_texts
from autotune.report.answer import MOST_TRIED, next_block, refused_lines
from autotune.report.clusters import clusters_block
from autotune.report.document import assumptions, baseline_place
from autotune.report.kinds import kinds_line
from autotune.report.nearest_table import endless_note, nearest_table
from autotune.report.ranked_table import ranked_plans, ranked_table
from autotune.report.study_words import study_headline
from autotune.report.text_blocks import Block, Line, Report
from autotune.report.verdict import sampling_errors, tune_verdict
from autotune.report.vocabulary.metrics import METRICS
from autotune.report.vocabulary.plan_names import plan_name, subject_name
from autotune.report.vocabulary.titles import LIMITS, broken
from autotune.space import Space, short_plan
from autotune.text.numbers import within
from autotune.tuning import TuneResult
from autotune.tuning.answer_study import BaselineResult

MOST_READINGS = 4
"""Other readings of a baseline's string that are named."""


def tune_report(result: TuneResult, *, top: int) -> Report:
    """What to do, the best plans and the baseline, then what was left out, what was assumed, and what comes next.

    `top` plans, 0 for all.
    """
    subject = next(iter(result.ranked or result.infeasible), None)
    verdict, study = tune_verdict(result, "" if subject is None else subject_name(result, subject)), result.study
    metric = METRICS[study.objective.metric]
    found = [_plans(result, top), clusters_block(result), _left_out(result), assumed_block(assumptions(result))]
    return Report(
        headline=study_headline(study, f"ranked by {within(metric.label)} ({study.objective.direction})"),
        reason=verdict.headline,
        tone=verdict.kind,
        lines=tuple(line for line in (verdict.reach, *verdict.lines, verdict.place) if line),
        blocks=tuple(block for block in (*found, next_block(result, verdict)) if block is not None),
    )


def assumed_block(said: tuple[str, ...]) -> Block:
    """What a study leaves open, and what was taken instead."""
    return Block(key="assumed", title="Assumed (the study leaves these open)", lines=said)


def rejected_lines(rejected: Mapping[str, int]) -> tuple[Line, ...]:
    """How many layouts each rule forbids, most first."""
    found = sorted(rejected.items(), key=lambda item: -item[1])
    return tuple(Line(text=f"{n:>6,}  {rule}: {rule_texts()[rule]}", tone="dim") for rule, n in found)


def _plans(result: TuneResult, top: int) -> Block:
    lines = () if result.baseline is None else _baseline(result, result.baseline)
    if not result.ranked:
        nearest = nearest_table(result, top or None, overflow="continued")
        notes = endless_note(result.infeasible[: top or None])
        return Block(title="Plans that break a limit, nearest first", table=nearest, lines=(*notes, *lines))
    table = ranked_table(result, ranked_plans(result, top or None), overflow="continued")
    refused = refused_lines(result, tuple(enumerate(result.ranked[: min(top or MOST_TRIED, MOST_TRIED)], start=1)))
    kinds = [line] if (line := kinds_line(result)) else []
    said: tuple[str | Line, ...] = (_sure(result), *kinds, *refused, *lines)
    return Block(title="Plans that keep every limit, best first", table=table, lines=said)


def _sure(result: TuneResult) -> str:
    """How far the first plan stands out."""
    alike = sum(result.confidence[p.plan].among_best for p in result.ranked) - 1
    others = "1 other plan (≈)" if alike == 1 else f"{alike or 'no'} other plans (≈)"
    return f"{others[0].upper()}{others[1:]} cannot be told apart from the first with 80 % confidence."


def _baseline(result: TuneResult, baseline: BaselineResult) -> tuple[Line, ...]:
    """What the baseline's string was taken to mean, its place or what it breaks, and what it could mean else."""
    resolution, known, dense = baseline.resolution, baseline.result, not result.study.arch.is_moe
    engine, layout = resolution.candidate.engine, resolution.candidate.layout
    plan = short_plan(layout, dense=dense) if known is None else plan_name(known, dense=dense)
    tone = "bad"
    if known is None:
        said = f"cannot be launched: {'; '.join(f'{v.rule}: {v.message}' for v in resolution.violations)}"
    elif known.feasible:
        said, tone = baseline_place(baseline, result), "base"
    else:
        said = f"infeasible: {'; '.join(broken(v) for v in known.violations)}"
    out = [Line(text=f"baseline {baseline.text} = {engine}:{plan.removeprefix(f'{engine}:')}: {said}", tone=tone)]
    if resolution.alternatives:
        several = {c.engine for c in resolution.alternatives} != {engine}
        others = [
            f"{c.engine}:{short_plan(c.layout)}" if several else short_plan(c.layout)
            for c in resolution.alternatives[:MOST_READINGS]
        ]
        more = len(resolution.alternatives) - MOST_READINGS
        out.append(Line(text=f"could also have meant: {', '.join(others)}{f' and {more} more' if more > 0 else ''}"))
    return tuple(out)


def space_line(space: Space, what: str, *, complete: bool, elapsed_s: float) -> str:
    """How many layouts there are, how many of them `what`, and how they were scored."""
    scope = "every valid plan was scored" if complete else "sampled: not every plan was scored"
    counts = f"{len(space.candidates):,} valid of {space.enumerated:,} layouts"
    return f"{counts}, {what}; {scope} in {elapsed_s:.2f} s"


def _left_out(result: TuneResult) -> Block:
    lines: list[str | Line] = []
    if result.space.enumerated:
        feasible = f"{result.feasible_count:,} feasible"
        feasible += f", {result.not_simulated_count:,} not simulated" if result.not_simulated_count else ""
        line = space_line(result.space, feasible, complete=result.complete, elapsed_s=result.elapsed_s)
        lines.append(
            line + ("" if result.storage is None else f" ({result.scored_now:,} now, the rest from the storage)")
        )
    lines += [Line(text="Rejected, by rule:"), *rejected_lines(result.space.rejected)]
    if result.pools is not None:
        found, how = result.pools, "from the storage"
        if found.joined_points is not None:
            pairs = f"{found.joined_points:,} pairs of operating points joined, the others dominated"
            how = f"{pairs}, in {found.elapsed_s:.2f} s"
        lines.append(
            f"disaggregated: {found.plans:,} pairs of pool layouts over every split, all covered ({how}); the best "
            f"{found.kept:,} are in the ranking"
        )
    if result.by_percentile is not None:
        seen = result.by_percentile
        more = (
            f"; {len(seen.left):,} more could at best come behind the first {len(seen.ranked):,}" if seen.left else ""
        )
        lines.append(
            f"percentiles: {seen.simulated:,} plans simulated, {result.kept_count:,} of them keep every limit{more}"
        )
        lines += _sampled(result, seen.sampled)
    binding = sorted(result.infeasible_counts.items(), key=lambda item: -item[1])
    lines += [Line(text=f"infeasible {n:>4,}  {LIMITS[code]} is what binds", tone="dim") for code, n in binding]
    lines += [] if result.storage is None else [f"Trials are in {result.storage}"]
    return Block(title="What was left out, and why", lines=tuple(lines))


def _sampled(result: TuneResult, what: str) -> list[str]:
    """What of a long log was simulated, and what that leaves open of the first plan's figures."""
    return [f"sampled: {what}{sampling_errors(result)}"] if what else []
