"""How many replicas run when: `autotune plan-day`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from autotune.cli.options import EXIT_INFEASIBLE, QUESTION, SHOWN, NewFile, Question

if TYPE_CHECKING:
    from autotune.planning.schedule_files import AskedDay
    from autotune.study import Study
REPEATED = ("step", "plans", "min_replicas", "min_saving", "risk", "forecast_error")
"""Parameters that the crontab gives to the plan of the next day as they stand."""


@click.command(name="plan-day")
@QUESTION
@click.option(
    "--traffic", required=True, metavar="FILE", help="Request log, best of several days; - for standard input."
)
@click.option("--step", default="1h", show_default=True, metavar="TIME", help="How often the number may change.")
@click.option("--plans", default=3, show_default=True, type=click.IntRange(1, 8), help="Plans that may take turns.")
@click.option("--min-replicas", default=1, show_default=True, type=click.IntRange(1, 10_000), help="Always running.")
@click.option(
    "--min-saving",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0.0, 1e6),
    metavar="GPU-HOURS",
    help="What a change has to save, at least.",
)
@click.option(
    "--risk",
    default=0.05,
    show_default=True,
    type=click.FloatRange(1e-4, 0.5),
    help="Probability with which a step's load may exceed what it has room for.",
)
@click.option(
    "--forecast-error",
    type=click.FloatRange(0.0, 3.0),
    metavar="SHARE",
    help="Relative error of a step's forecast. Default: what past days say; 0.21 where the log has one day.",
)
@click.option("--html", type=NewFile(), help="Page with load, capacity and attainment by the hour.")
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Folder for schedule files: a script that starts the plans, KEDA cron triggers, a crontab, bounds for "
    "Dynamo's planner, pictures, day.json.",
)
@SHOWN
def plan_day(
    question: Question,
    traffic: str,
    step: str,
    plans: int,
    min_replicas: int,
    min_saving: float,
    risk: float,
    forecast_error: float | None,
    html: str | None,
    out: str | None,
    as_json: bool,
) -> None:  # one parameter for each option
    """Plan a day: at each time of day the plan and the replicas that keep the limits with the fewest GPU-hours.

    The load of each step is forecast from the same time of past days in the log, with its error. A replica takes what
    closed form and simulation both allow within the study's limits; the study's cluster is the most that may run.
    Of a disaggregated plan the workers of both pools are counted, so that their ratio follows the hours.
    Starting, loading weights and draining hold GPUs that serve nothing ([switch] of the study). The schedule is exact:
    none of the plans that it chooses from has fewer GPU-hours. The last day of the log is then served by simulation, as
    it came and with surges of twice the load, beside a fixed number, a threshold scaler, and a schedule that knew the
    load.

    \b
    autotune plan-day studies/day-llama-70b-64xh100.toml --traffic requests.csv --table
    autotune plan-day studies/day-llama-70b-64xh100.toml --traffic requests.csv --step 30m --out day --html day.html

    Exit code 0: every step has room; 3: the cluster is too small for some; 2: the input is wrong.
    """
    import shlex
    from pathlib import Path

    from autotune.cli.output import show, write_page
    from autotune.cli.times import duration_s
    from autotune.files import OutFile
    from autotune.planning import DayQuestion
    from autotune.planning import plan_day as planned
    from autotune.planning.document import day_document
    from autotune.planning.schedule_files import schedule_files
    from autotune.report.day import day_report
    from autotune.report.document import finite
    from autotune.report.svg.day_plot import day_pictures
    from autotune.traffic.read import read_traffic

    day = DayQuestion(
        step_s=duration_s(step, "--step"),
        plans=plans,
        min_replicas=min_replicas,
        change_gpu_h=min_saving,
        risk=risk,
        forecast_log_sd=forecast_error,
    )
    if out is not None:
        _check_folder(Path(out))
    found = planned(question.load(), traffic, read_traffic(traffic), day)
    document = finite(day_document(found))
    if html is not None:
        from autotune.report.html.cluster_pages import day_page

        made_by = question.command("plan-day", "--traffic", traffic, "--step", step)
        folder = out or "day"
        steps = [
            *([] if out else [f"{made_by} --out day"]),
            shlex.join(["bash", f"{folder}/launch.sh"]),
            shlex.join(["kubectl", "apply", "-f", f"{folder}/keda.yaml"]),
        ]
        write_page(html, day_page(document, made_by=made_by, steps=steps))
    if out is not None:
        from autotune.files import write_folder

        content = schedule_files(document, _asked(found.study, question, traffic, out))
        pictures = {name: OutFile(text=text) for name, text in day_pictures(document).items()}
        write_folder(Path(out).absolute(), content | pictures)
    show(document, day_report, as_json=as_json)
    sys.exit(0 if document["keeps"] else EXIT_INFEASIBLE)


def _asked(loaded: Study, question: Question, traffic: str, out: str) -> AskedDay:
    """The question in words that hold in any folder; nothing of a log that came in a pipe."""
    from pathlib import Path

    from autotune.cli.unattended import absolute, program, said, source
    from autotune.launch.service import loads_by_name
    from autotune.planning.schedule_files import AskedDay
    from autotune.traffic.load import log_settings

    context = click.get_current_context()
    own = said(context, ("overrides",), absolute)
    file = None if traffic == "-" else source(traffic, absolute)
    return AskedDay(
        program=program(),
        study=absolute(question.path),
        traffic=file,
        settings=tuple(own[1::2]),
        options=tuple(said(context, REPEATED, absolute)),
        of_log=() if file is None else log_settings(Path(question.path), question.overrides, file),
        out=absolute(out),
        state=absolute("state"),
        model_named=loads_by_name(loaded),
    )


def _check_folder(folder: object) -> None:
    """A folder that is new, empty, or of an earlier day; others are not overwritten.

    Raises:
        InputError: it holds something else.
    """
    import json
    from pathlib import Path

    from autotune.planning.document import WRITTEN_BY
    from costmodel.errors import InputError
    from costmodel.files import read_file

    target = Path(str(folder))
    if not target.is_symlink() and (not target.exists() or (target.is_dir() and not any(target.iterdir()))):
        return
    try:
        ours = json.loads(read_file(target / "day.json", 50_000_000)).get("written_by") == WRITTEN_BY
    except (ValueError, AttributeError, RecursionError):  # an InputError is a ValueError
        ours = False
    if target.is_symlink() or not ours:
        raise InputError.single("--out", f"must be new, empty, or written by an earlier plan-day, got {target}")
