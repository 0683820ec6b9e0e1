"""The answer of a study on a terminal, in about twenty lines: what to do, five rows, what follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.engines import engine_title
from autotune.launch.refusal import export_refusal
from autotune.report.document import assumptions, tune_document
from autotune.report.kinds import kinds_line
from autotune.report.nearest_table import endless_note, nearest_table
from autotune.report.ranked_table import key_words, ranked_plans, ranked_table
from autotune.report.study_words import command, gpu_words, launch_steps
from autotune.report.text_blocks import Block, Line, Report
from autotune.report.verdict import Verdict, sampled, tune_verdict
from autotune.report.vocabulary.plan_names import subject_name
from autotune.report.vocabulary.words import lengths, token_words
from autotune.study import Study
from autotune.tuning import PlanResult, TuneResult

MATTER = (
    ("calibration: ", ""),
    ("approximated: ", ""),
    ("prompts take a third", "the closed form, though prompts take a third of the time"),
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


def answer_report(result: TuneResult, *, top: int) -> Report:
    """The verdict, what was never measured, `top` plans (0: all) and the one in production, and the next commands."""
    subject = next(iter(result.ranked or result.infeasible), None)
    verdict = tune_verdict(result, "" if subject is None else subject_name(result, subject))
    blocks = [_plans(result, top, verdict), next_block(result, verdict)]
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


def _plans(result: TuneResult, top: int, verdict: Verdict) -> Block:
    notes: list[str] = []
    if not result.ranked:
        table = nearest_table(result, top or None, overflow="dropped")
        title = "The nearest plans, and what they break"
        notes += endless_note(result.infeasible[: top or None])
    else:
        shown = ranked_plans(result, top or None)
        table = ranked_table(result, shown, overflow="dropped")
        title = f"Best of {len(result.ranked):,} {key_words(result.study)}"
        title += "; ≈ may be as good as # 1" if any(row.alike for row in table.rows[1:]) else ""
        notes += [line] if (line := kinds_line(result, short=True)) else []
        notes += refused_lines(result, [(rank, plan) for rank, plan, _ in shown if rank is not None])
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


def next_block(result: TuneResult, verdict: Verdict) -> Block | None:
    """The commands that follow from the answer, each of which runs as it stands."""
    study = result.study
    if not result.ranked:
        lines = (command(study, "tune", settings=verdict.settings),) if verdict.settings else ()
        return Block(title="Next", lines=lines, tight=True) if lines else None
    best, baseline = result.ranked[0], result.baseline
    if baseline is not None and baseline.result is not None and baseline.result.plan != best.plan:
        steps = [command(study, "compare")]
        if verdict.badge == "Keep":  # nothing new is launched
            return Block(title="Next", lines=tuple(steps), tight=True)
    else:
        steps = [command(study, "evaluate", "--plan", "best")]
    taken = next((plan for plan in result.ranked[:MOST_TRIED] if not export_refusal(study, plan)), None)
    if taken is not None:
        steps += _export(result, taken)
    return Block(title="Next", lines=tuple(steps), tight=True)


def _export(result: TuneResult, plan: PlanResult) -> tuple[Line, ...]:
    """The commands that launch and measure a plan, which is named where it is not the first of its engine."""
    first = plan is next(p for p in result.ranked if p.engine == plan.engine)
    named = () if first else ("--plan", subject_name(result, plan).removeprefix(f"{plan.engine}:"))
    unnamed = Line(text="To export, name its weights with --model: its own name has none.", tone="dim")
    return launch_steps(result.study, plan, *named) or (unnamed,)


def refusals(result: TuneResult, shown: Sequence[tuple[int, PlanResult]]) -> list[dict[str, Any]]:
    """The plans that no launch files can be written for: rank, full plan string, and why, beginning with the rule."""
    found = ((rank, plan, export_refusal(result.study, plan)) for rank, plan in shown)
    return [{"rank": rank, "plan": plan.plan, "why": why} for rank, plan, why in found if why]


def refused_lines(result: TuneResult, shown: Sequence[tuple[int, PlanResult]]) -> list[str]:
    """The ranks of plans that no launch files can be written for, by the rule that says so, with the first's reason."""
    found: dict[str, tuple[str, list[str]]] = {}
    for row in refusals(result, shown):
        found.setdefault(row["why"].partition(":")[0], (row["why"], []))[1].append(f"{row['rank']:,}")
    return [f"Export refuses # {', '.join(ranks)}: {why}." for why, ranks in found.values()]


def answer_document(result: TuneResult, *, top: int) -> dict[str, Any]:
    """What `autotune tune --json` writes: the verdict, the plans (`top` of them; 0: all) and the next commands.

    Export is asked about the plans that are shown, at most the first `MOST_TRIED`.
    """
    subject = next(iter(result.ranked or result.infeasible), None)
    verdict = tune_verdict(result, "" if subject is None else subject_name(result, subject))
    steps = next_block(result, verdict)
    tried = min(top or MOST_TRIED, MOST_TRIED)
    said = {"answer": verdict.badge, "sentence": verdict.headline, "lines": verdict.lines, "reach": verdict.reach}
    said |= {"scope": verdict.scope}
    return tune_document(result, top=top) | {
        "verdict": said,
        "export_refuses": refusals(result, tuple(enumerate(result.ranked[:tried], start=1))),
        "next": [] if steps is None else [x.text for x in steps.lines if isinstance(x, Line) and x.whole],
    }
