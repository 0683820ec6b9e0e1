"""The answer of a study on a terminal, in about twenty lines: what to do, five rows, what follows."""

from __future__ import annotations

from autotune.engines import ENGINES
from autotune.report.answer_table import answer_table, key_words
from autotune.report.document import assumptions
from autotune.report.study_words import command, study_headline
from autotune.report.text_blocks import Block, Line, Report
from autotune.report.tune_tables import nearest_table, ranked_plans
from autotune.report.verdict import Verdict, tune_verdict
from autotune.report.vocabulary.plan_names import plan_name
from autotune.report.vocabulary.words import count
from autotune.study import Study
from autotune.tuning import PlanResult, TuneResult
from autotune.tuning.remedy import find_remedy

MATTER = (
    ("calibration: ", ""),
    ("approximated: ", ""),
    ("workload.prefix_cache_hit_frac not given", "no prompt is cached"),
    ("workload.expert_skew not given", "balanced routing"),
    ("workload.longest_prompt not given", "no prompt longer than the longest isl"),
    ("engine_options.gpu_memory_utilization not given", "the engine fills 90 % of memory"),
)
"""How assumptions that move an answer begin, and what they are in a few words; those without words are said elsewhere.
"""


def answer_report(result: TuneResult, *, top: int) -> Report:
    """The verdict, what was never measured, `top` plans (0: all) and the one in production, and the next commands."""
    subject = next(iter(result.ranked or result.infeasible), None)
    verdict = tune_verdict(result, "" if subject is None else subject_name(result, subject))
    blocks = [_plans(result, top, verdict), next_block(result)]
    return Report(
        headline=study_headline(result.study, _question(result.study)),
        reason=verdict.headline,
        tone=verdict.kind,
        lines=(verdict.reach, *verdict.lines[:-1]),  # the last line counts plans, as the block below does
        blocks=tuple(block for block in blocks if block is not None),
    )


def subject_name(result: TuneResult, plan: PlanResult) -> str:
    """A plan as every command takes it back, with the engine where several compete."""
    several = len({p.engine for p in (*result.ranked, *result.infeasible)}) > 1
    return plan_name(plan, dense=not result.study.arch.is_moe, several_engines=several)


def _question(study: Study) -> str:
    work = study.workload
    prompts, outputs = (f"{x.min:,}" if x.min == x.max else f"{x.min:,} to {x.max:,}" for x in (work.isl, work.osl))
    load = "as much as the limits allow"
    if work.request_rate_per_s is not None:
        load = f"{work.request_rate_per_s:g} requests/s"
    elif work.concurrency is not None:
        load = f"{work.concurrency:,} in flight"
    return f"{prompts} + {outputs} tokens, {load}"


def _plans(result: TuneResult, top: int, verdict: Verdict) -> Block:
    notes: list[str] = []
    if not result.ranked:
        table = nearest_table(result, result.infeasible[: top or None])
        title = "The nearest plans, and what they break"
    else:
        shown = ranked_plans(result, top or None)
        table = answer_table(result, shown)
        title = f"The best of {count(len(result.ranked), 'plan')} that keep every limit, {key_words(result.study)}"
        alike = sum(result.confidence[p.plan].among_best for p in result.ranked) - 1
        if alike > 0:
            notes.append(f"≈: {count(alike, 'plan')} cannot be told apart from the first.")
    if result.baseline is not None:
        notes.append(f"now: {_in_production(result)}.")
    notes.append(f"{verdict.lines[-1]} Assumed: {_assumed(result)}; all with -v.")
    return Block(title=title, table=table, lines=(" ".join(notes[:-1]), notes[-1]) if notes[1:] else tuple(notes))


def _in_production(result: TuneResult) -> str:
    """`EP16/PP2/TP4/DP4, read as vllm:R4 PP2 TP4 DP4 EP16`, or what it breaks."""
    baseline = result.baseline
    if baseline is None:
        return ""
    if baseline.result is None:
        return f"{baseline.text} breaks {baseline.resolution.violations[0].rule}"
    read = plan_name(baseline.result, dense=not result.study.arch.is_moe, several_engines=True)
    same = read.partition(":")[2] == baseline.text
    return read if same else f"{baseline.text}, read as {read}"


def _assumed(result: TuneResult) -> str:
    """Those assumptions that move an answer."""
    said = assumptions(result)
    known = [words for begins, words in MATTER if words and any(text.startswith(begins) for text in said)]
    work = result.study.workload
    if work.isl.min == work.isl.max and not work.points and work.traffic is None:
        known.append("every prompt as long as the mean")
    return ", ".join(known[:3]) or "nothing that the study leaves open"


def next_block(result: TuneResult) -> Block | None:
    """The commands that follow from the answer, each of which runs as it stands."""
    study = result.study
    if not result.ranked:
        found = find_remedy(result)
        settings = found.settings
        if not settings and found.fewest_gpus is not None:
            settings = (f"cluster.gpus={found.fewest_gpus}",)
        lines = (command(study, "tune", settings=settings),) if settings else ()
        return Block(title="Next", lines=lines) if lines else None
    best, baseline = result.ranked[0], result.baseline
    name = subject_name(result, best)
    steps = []
    if baseline is not None and baseline.result is not None and baseline.result.plan != best.plan:
        steps.append(command(study, "compare"))
    if best.pools is None:
        engine = () if study.engine == best.engine else (f"engine={best.engine}",)
        plan = name.partition(":")[2] or name
        steps.append(command(study, "evaluate", "--plan", name))
        export = ("--plan", plan, "--target", best.engine, "--out", "launch")
        steps.append(command(study, "export", *export, settings=engine))
        measured = f"launch/{ENGINES[best.engine].bench_result}"
        steps.append(Line(text=f"autotune verify {measured}    # after launch/bench.sh", whole=True))
    return Block(title="Next", lines=tuple(steps)) if steps else None
