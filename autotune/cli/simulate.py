"""One plan, served request by request: `autotune simulate`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from autotune.cli.options import EXIT_INFEASIBLE, FLAGS, QUESTION, READING, VERBOSE, NewFile, Question

if TYPE_CHECKING:
    from typing import Any

    from autotune.study import Study
    from autotune.traffic.options import ReadOptions
    from autotune.tuning import BaselineResult

USUAL_LOAD_FRAC = 0.8
"""Share of what a plan serves in a closed loop that comes where nothing says how much does: at all of it requests that
come at random would wait without end."""


@click.command()
@QUESTION
@click.option("--plan", help="Plan to simulate, as a short or a full plan string. Default: the study's baseline.")
@click.option(
    "--traffic",
    help="Request log to serve, in place of the study's workload, in any form that `retune` reads; - for stdin.",
)
@READING
@click.option(
    "--rate",
    type=float,
    help=f"Requests per second, in place of the study's; where it gives neither a rate nor requests in flight, "
    f"{USUAL_LOAD_FRAC:.0%} of what the plan serves in a closed loop.",
)
@click.option("--html", type=NewFile(), help="Write a page with the distributions and the timeline.")
@VERBOSE
@FLAGS
def simulate(
    question: Question,
    plan: str | None,
    traffic: str | None,
    reading: ReadOptions,
    rate: float | None,
    html: str | None,
    verbose: bool,
    as_json: bool,
    as_table: bool,
) -> None:
    """Serve requests by a plan of STUDY, event by event, and say what they meet: percentiles, queue, KV cache.

    The engine's own scheduler is simulated: chunked prefill, token budgets, seats, KV blocks, preemption, prefix hits.
    Requests are drawn as [workload] says (arrivals, lengths), or come from a log. Percentiles are over requests; the
    likely range of each figure says how sure the estimate is. A sweep finds the load at which each limit breaks.

    \b
    autotune simulate studies/llama-70b-16xh100.toml --rate 10 --table
    autotune simulate studies/llama-70b-16xh100.toml --plan R4/TP4 --traffic requests.csv

    Exit code 0: every limit is kept; 3: one is broken, more comes than the plan serves, or it cannot run: it does not
    fit in memory or breaks a rule of the engine, and nothing is simulated; 2: the input is wrong.
    """
    from math import isfinite

    from autotune.cli.output import chosen_form, publish, write_page
    from autotune.report.html.simulation import simulation_page
    from autotune.report.simulation import BRIEF, simulation_report
    from autotune.tuning.answer_study import full_string
    from costmodel.errors import InputError

    if traffic is not None and rate is not None:
        raise InputError.single("--rate", "must not be given with --traffic, which has its own times")
    if rate is not None and not (isfinite(rate) and 0.0 < rate <= 1e9):
        raise InputError.single("--rate", f"must be above 0 and at most 1e9 requests per second, got {rate:g}")
    loaded = question.load(traffic, reading)
    plan = None if plan is None else full_string(loaded, plan, path="--plan")
    loaded = _at_its_rate(question, loaded, plan, rate)
    document = _simulated(loaded, _scored(loaded, plan))
    if html is not None:
        options = (("--plan", plan), ("--traffic", traffic), ("--rate", rate))
        words = [str(word) for option in options if option[1] is not None for word in option]
        write_page(html, simulation_page(document, made_by=question.command("simulate", *words)))
    form = chosen_form(None, None, as_json=as_json, as_table=as_table)
    publish(document, simulation_report, simulation_page, form=form, out=None, short=None if verbose else BRIEF)
    sys.exit(0 if document["kept"] else EXIT_INFEASIBLE)


def _simulated(study: Study, named: BaselineResult) -> dict[str, Any]:
    """The document of a plan: what its requests meet, or why it cannot run, with the commands that follow."""
    from autotune.disaggregated.rescore import rescored
    from autotune.report.document import finite
    from autotune.report.simulation import infeasible_document, next_steps
    from autotune.scoring.value_and_gain import hard_limits_kept
    from autotune.simulation.report_simulation import simulation_document
    from autotune.simulation.simulate_plan import REQUESTS_OF_ONE, simulate_plan, study_traffic
    from costmodel.simulation.simulate import NoRoomError

    result = named.result
    if result is None or not hard_limits_kept(result):
        document = infeasible_document(study, named)
    else:
        asked = study_traffic(study, count=REQUESTS_OF_ONE)
        # a baseline may have been scored for as many in flight as it says, whatever comes
        at_load = rescored(study, result)
        try:
            found = simulate_plan(study, at_load, asked)
            document = simulation_document(study, at_load, asked, found)
        except NoRoomError as error:
            document = infeasible_document(study, named, no_room=str(error))
    return {**finite(document), "next": next_steps(study, named)}


def _scored(study: Study, plan: str | None) -> BaselineResult:
    """The plan, or the study's baseline."""
    from autotune.tuning.answer_study import score_named

    missing = "is required where the study has no [baseline]: say which plan with --plan"
    return score_named(study, plan, path="--plan", missing=missing)


def _at_its_rate(question: Question, study: Study, plan: str | None, rate: float | None) -> Study:
    """The study at the rate that is asked for, so that the plan has the knobs that are best there; as it is at its own.

    A log keeps its lengths, which are drawn at the rate. Sessions are drawn at it as where the study says it.
    """
    from dataclasses import replace

    from autotune.simulation.simulate_plan import at_rate

    work = study.workload
    if rate is None and not (work.request_rate_per_s or work.concurrency):
        result = _scored(study, plan).result
        if result is None:
            return study
        rate = float(f"{USUAL_LOAD_FRAC * result.metrics['requests_per_s']:.4g}")
    if rate is None:
        return study
    said = (f"workload.request_rate_per_s={rate:.12g}",)
    if work.sessions is not None:
        return question._replace(overrides=(*question.overrides, *said)).load()
    if work.points:  # a log says its rate itself: no study of it has another
        return at_rate(study, rate)
    overrides = (*study.overrides, *(() if work.concurrency is None else ("workload.concurrency=",)), *said)
    return replace(at_rate(study, rate), overrides=overrides)
