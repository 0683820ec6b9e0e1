"""The plan in production against a candidate: `autotune compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from autotune.cli.options import FORMS, QUESTION, READING, VARIABLES, Question, given_variables

if TYPE_CHECKING:
    from autotune.study import Study
    from autotune.traffic.options import ReadOptions
    from autotune.traffic.profile import WorkloadProfile
    from costmodel.simulation.requests import Requests


@click.command()
@QUESTION
@click.option(
    "--current",
    metavar="PLAN|FILE|COMMAND",
    help="What runs today: a plan string, or what `autotune import` reads. Default: the study's baseline.",
)
@VARIABLES
@click.option(
    "--candidate",
    metavar="PLAN|best",
    default="best",
    show_default=True,
    help="The plan to compare with; best: the first of the ranking.",
)
@click.option(
    "--traffic", metavar="FILE", help="A request log or metrics; their traffic replaces the study's workload."
)
@READING
@FORMS
def compare(
    question: Question,
    current: str | None,
    variables: tuple[str, ...],
    candidate: str,
    traffic: str | None,
    reading: ReadOptions,
    form: str | None,
    out: str | None,
    verbose: bool,
    as_json: bool,
    as_table: bool,
) -> None:
    """Compare the plan in production with another: what differs, why, how sure that is, and what switching takes.

    The verdict is switch, keep or undecided, with its reason. The exit code is 0 whatever the verdict; 2: the input is
    wrong.

    \b
    autotune compare studies/deepseek-v3-128xh200.toml
    autotune compare studies/qwen3-235b-64xh100.toml --candidate TP4/DP2/EP8 --format markdown
    autotune compare STUDY --current TP8 --traffic requests.csv --json
    """

    from autotune.cli.current import with_current
    from autotune.cli.output import chosen_form, publish
    from autotune.comparison import compare as compared
    from autotune.report.comparison import comparison_document
    from autotune.report.comparison_text import BRIEF, comparison_report

    form = chosen_form(form, out, as_json=as_json, as_table=as_table)
    loaded = question.load()
    profile, requests = (None, None) if traffic is None else _traffic(traffic, reading, loaded)
    runs = with_current(loaded, current, given_variables(variables))
    found = compared(runs.study, runs.plan, candidate, traffic=profile, source=traffic, requests=requests)
    document = comparison_document(found)
    short = None if verbose or out is not None else BRIEF
    publish(document, comparison_report, _page, form=form, out=out, short=short)


def _traffic(source: str, reading: ReadOptions, study: Study) -> tuple[WorkloadProfile, Requests | None]:
    """The profile of a log, and its requests where it holds any."""
    from dataclasses import replace

    from autotune.traffic.read import read_traffic
    from autotune.traffic.replayed import LEAST_REQUESTS, requests_of_log
    from costmodel.errors import InputError

    log = read_traffic(source, options=replace(reading, model=study.arch.name))
    if log.refusal is not None:
        raise InputError.single(source, f"cannot be compared on: {log.refusal}")
    single = log.columns is not None and log.columns.times_s.size >= LEAST_REQUESTS
    return log.profile(), requests_of_log(source, log, study.workload.prefix_cache_hit_frac) if single else None


def _page(document: dict[str, Any]) -> str:
    from autotune.report.html.comparison import comparison_page  # the template engine is for those who want a page

    return comparison_page(document)
