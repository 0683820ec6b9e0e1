"""The answer of a study on a terminal: in about twenty lines, and whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.engines import engine_title, rule_texts
from autotune.launch.export import Refusal, refusals
from autotune.metrics import METRICS
from autotune.report.clusters import clusters_block
from autotune.report.document import assumptions, baseline_place, tune_document
from autotune.report.kinds import kinds_line
from autotune.report.ranked_table import endless_note, key_words, nearest_table, ranked_plans, ranked_table
from autotune.report.study_words import called, command, gpu_words, launch_steps, study_headline
from autotune.report.text_blocks import Block, Line, Report
from autotune.report.verdict import Verdict, sampled, sampling_errors, tune_verdict
from autotune.report.vocabulary.plan_names import subject_name
from autotune.report.vocabulary.titles import LIMITS, broken
from autotune.report.vocabulary.words import lengths, token_words
from autotune.scoring.plan_name import plan_name
from autotune.scoring.unsure_means import CLOSED_FORM
from autotune.space import Space, short_plan
from autotune.study import Study
from autotune.study.own_calibration import UNUSED
from autotune.text.numbers import within
from autotune.tuning import BaselineResult, PlanResult, TuneResult
from costmodel.arch.catalog import GUESSED

MATTER = (
    ("calibration: ", ""),
    (UNUSED, "the calibration profile unused, as it covers nothing of this"),
    ("approximated: ", ""),
    (GUESSED, "what is quantised, by the model's name alone"),
    ("prompts take a third", "the closed form, though prompts take a third of the time"),
    (CLOSED_FORM, "means by the closed form, 5% and more off simulated ones"),
    ("search.gpus not given", "GPU counts in steps"),
    ("workload.prefix_cache_hit_frac not given", "no prefix cache"),
    ("workload.expert_skew not given", "balanced routing"),
    ("workload.longest_prompt not given", "no prompt above isl"),
    ("engine_options.gpu_memory_utilization not given", "90% of memory used"),
)
"""How assumptions that move an answer begin, and what they are in a few words; those without words are said elsewhere.
"""
MOST_ASSUMED = 3
"""Assumptions that are named."""
MOST_TRIED = 15
"""Plans among which the first that export takes is looked for."""


def answer_report(result: TuneResult, *, top: int, refusal: Refusal | None = None) -> Report:
    """The verdict, what was never measured, `top` plans (0: all) and the one in production, and the next commands.

    `refusal`: of `refusals`, where it is known already.
    """
    refusal = refusal or refusals(result.study)
    subject = next(iter(result.ranked or result.infeasible), None)
    verdict = tune_verdict(result, "" if subject is None else subject_name(result, subject))
    blocks = [_plans(result, top, verdict, refusal), next_block(result, verdict, refusal)]
    return Report(
        headline=_question(result.study),
        reason=verdict.headline,
        tone=verdict.kind,
        lines=(verdict.reach, " ".join(verdict.lines)),
        blocks=tuple(block for block in blocks if block is not None),
    )


def _question(study: Study) -> str:
    """What is asked, on one line of 80 columns: the commands below name the study."""
    work = study.workload
    tokens = f"{lengths(work.isl, '–')}+{lengths(work.osl, '–')} {token_words(work.isl)}"
    load = "up to the limits"
    if work.request_rate_per_s is not None:
        load = f"{work.request_rate_per_s:g} requests/s"
    elif work.concurrency is not None:
        load = f"{work.concurrency:,} in flight"
    model = study.arch.name.rpartition("/")[2]
    return f"{model} on {gpu_words(study)}, {engine_title(study.engine)}; {tokens}, {load}"


def _plans(result: TuneResult, top: int, verdict: Verdict, refusal: Refusal) -> Block:
    notes: list[str] = []
    if not result.ranked:
        table = nearest_table(result, top or None, overflow="dropped")
        title = "The nearest plans, and what they break"
        notes += endless_note(result.infeasible[: top or None])
    else:
        shown = ranked_plans(result, top or None)
        table = ranked_table(result, shown, overflow="dropped")
        of = (
            f"of {count:,}"
            if (count := len(result.ranked)) == (most := count + len(result.unplaced))
            else (f"{count:,} of up to {most:,}")
        )
        title = f"Best {of} {key_words(result.study)}"
        title += "; ≈ may be as good as # 1" if any(row.alike for row in table.rows[1:]) else ""
        notes += [line] if (line := kinds_line(result, short=True)) else []
        notes += endless_note([plan for _, plan, _ in shown])
        notes += refused_lines([(rank, plan) for rank, plan, _ in shown if rank is not None], refusal)
    notes += [verdict.scope] if sampled(result) else []
    notes.append(f"Assumed: {_assumed(result, MOST_ASSUMED - len(notes))}; -v: all.")
    return Block(title=title, table=table, lines=(" ".join(notes),), tight=True)


def _assumed(result: TuneResult, most: int) -> str:
    """Those assumptions that move an answer, at most so many and at least one."""
    said = assumptions(result)
    known = [words for begins, words in MATTER if words and any(text.startswith(begins) for text in said)]
    work = result.study.workload
    if work.isl.min == work.isl.max and not work.points and work.traffic is None:
        known.append("every prompt as long as the mean")
    return ", ".join(known[: max(most, 1)]) or "nothing that the study leaves open"


def next_block(result: TuneResult, verdict: Verdict, refusal: Refusal) -> Block | None:
    """The commands that follow from the answer, each of which runs as it stands."""
    study = result.study
    if not result.ranked:
        lines = (command(study, "tune", settings=verdict.settings),) if verdict.settings else ()
        return Block(title="Next", lines=lines, tight=True) if lines else None
    best, baseline = result.ranked[0], result.baseline
    keep, base = verdict.badge == "Keep", None if baseline is None else baseline.result
    if base is not None and (base.plan != best.plan or not keep):
        steps = [command(study, "compare")]
        if keep:  # nothing new is launched
            return Block(title="Next", lines=tuple(steps), tight=True)
    else:
        steps = [command(study, "evaluate", "--plan", "best")]
    taken = next((plan for plan in result.ranked[:MOST_TRIED] if not refusal(plan)), None)
    if taken is not None:
        steps += _export(result, taken)
    return Block(title="Next", lines=tuple(steps), tight=True)


def _export(result: TuneResult, plan: PlanResult) -> tuple[Line, ...]:
    """The commands that launch and measure a plan, which is named where it is not the first of its engine."""
    first = plan is next(p for p in result.ranked if p.engine == plan.engine)
    named = () if first else ("--plan", called(result.study, plan))
    unnamed = Line(text="To export, name its weights with --model: its own name has none.", tone="dim")
    return launch_steps(result.study, plan, *named) or (unnamed,)


def _refused(shown: Sequence[tuple[int, PlanResult]], refusal: Refusal) -> list[dict[str, Any]]:
    """The plans that no launch files can be written for: rank, full plan string, and why, beginning with the rule."""
    return [{"rank": rank, "plan": plan.plan, "why": why} for rank, plan in shown if (why := refusal(plan))]


def refused_lines(shown: Sequence[tuple[int, PlanResult]], refusal: Refusal) -> list[str]:
    """The ranks of plans that no launch files can be written for, by the rule that says so, with the first's reason."""
    found: dict[str, tuple[str, list[str]]] = {}
    for row in _refused(shown, refusal):
        found.setdefault(row["why"].partition(":")[0], (row["why"], []))[1].append(f"{row['rank']:,}")
    return [f"Export refuses # {', '.join(ranks)}: {why}." for why, ranks in found.values()]


def answer_document(result: TuneResult, *, top: int, refusal: Refusal | None = None) -> dict[str, Any]:
    """What `autotune tune --json` writes: the verdict, the plans (`top` of them; 0: all) and the next commands.

    Export is asked about the plans that are shown, at most the first `MOST_TRIED`; `refusal` is of
    `refusals`, where it is known already.
    """
    refusal = refusal or refusals(result.study)
    subject = next(iter(result.ranked or result.infeasible), None)
    verdict = tune_verdict(result, "" if subject is None else subject_name(result, subject))
    steps = next_block(result, verdict, refusal)
    tried = min(top or MOST_TRIED, MOST_TRIED)
    said = {"answer": verdict.badge, "sentence": verdict.headline, "lines": verdict.lines, "reach": verdict.reach}
    said |= {"scope": verdict.scope}
    return tune_document(result, top=top) | {
        "verdict": said,
        "export_refuses": _refused(tuple(enumerate(result.ranked[:tried], start=1)), refusal),
        "next": [] if steps is None else [x.text for x in steps.lines if isinstance(x, Line) and x.whole],
    }


MOST_READINGS = 4
"""Other readings of a baseline's string that are named."""


def tune_report(result: TuneResult, *, top: int, refusal: Refusal | None = None) -> Report:
    """What to do, the best plans and the baseline, then what was left out, what was assumed, and what comes next.

    `top` plans, 0 for all; `refusal`: of `refusals`, where it is known already.
    """
    refusal = refusal or refusals(result.study)
    subject = next(iter(result.ranked or result.infeasible), None)
    verdict, study = tune_verdict(result, "" if subject is None else subject_name(result, subject)), result.study
    metric = METRICS[study.objective.metric]
    found = [
        _all_plans(result, top, refusal),
        clusters_block(result),
        _left_out(result),
        assumed_block(assumptions(result)),
    ]
    return Report(
        headline=study_headline(study, f"ranked by {within(metric.label)} ({study.objective.direction})"),
        reason=verdict.headline,
        tone=verdict.kind,
        lines=tuple(line for line in (verdict.reach, *verdict.lines, verdict.place) if line),
        blocks=tuple(block for block in (*found, next_block(result, verdict, refusal)) if block is not None),
    )


def assumed_block(said: tuple[str, ...]) -> Block:
    """What a study leaves open, and what was taken instead."""
    return Block(key="assumed", title="Assumed (the study leaves these open)", lines=said)


def rejected_lines(rejected: Mapping[str, int]) -> tuple[Line, ...]:
    """How many layouts each rule forbids, most first."""
    found = sorted(rejected.items(), key=lambda item: -item[1])
    return tuple(Line(text=f"{n:>6,}  {rule}: {rule_texts()[rule]}", tone="dim") for rule, n in found)


def _all_plans(result: TuneResult, top: int, refusal: Refusal) -> Block:
    lines = () if result.baseline is None else _baseline(result, result.baseline)
    if not result.ranked:
        nearest = nearest_table(result, top or None, overflow="continued")
        notes = endless_note(result.infeasible[: top or None])
        return Block(title="Plans that break a limit, nearest first", table=nearest, lines=(*notes, *lines))
    shown = ranked_plans(result, top or None)
    table = ranked_table(result, shown, overflow="continued")
    refused = refused_lines(tuple(enumerate(result.ranked[: min(top or MOST_TRIED, MOST_TRIED)], start=1)), refusal)
    kinds = [line] if (line := kinds_line(result)) else []
    endless = endless_note([plan for _, plan, _ in shown])
    said: tuple[str | Line, ...] = (_sure(result), *endless, *kinds, *refused, *lines)
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
        lines += [f"sampled: {seen.sampled}{sampling_errors(result)}"] if seen.sampled else []
    binding = sorted(result.infeasible_counts.items(), key=lambda item: -item[1])
    lines += [Line(text=f"infeasible {n:>4,}  {LIMITS[code]} is what binds", tone="dim") for code, n in binding]
    lines += [] if result.storage is None else [f"Trials are in {result.storage}"]
    return Block(title="What was left out, and why", lines=tuple(lines))
