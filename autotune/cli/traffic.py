"""What a request log or metrics tell: `autotune traffic`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from autotune.cli.options import EXIT_REFUSED, READING, SHOWN, NewFile

if TYPE_CHECKING:
    from autotune.traffic.options import ReadOptions


@click.command()
@click.argument("source", metavar="FILE|URL")
@click.option(
    "--study", type=click.Path(dir_okay=False), help="Study by whose model and cluster the traffic is judged."
)
@click.option("--window", metavar="TIME", help="How far back: 90m, 24h, 7d. Default: everything.")
@click.option("--now", metavar="TIME", help="End of the window, ISO 8601 or Unix seconds. Default: the last request.")
@READING
@click.option("--plot", type=NewFile(), help="SVG file to write: rate over time and lengths.")
@SHOWN
def traffic(
    source: str,
    study: str | None,
    window: str | None,
    now: str | None,
    reading: ReadOptions,
    plot: str | None,
    as_json: bool,
) -> None:
    """Show what is understood of traffic: rate over time, lengths, bursts, and what prefix caches would find.

    Reads what `tune --traffic`, `retune` and `simulate` read: request logs as CSV, JSON or Parquet, access logs, and
    metrics in Prometheus' formats.

    \b
    autotune traffic requests.csv
    autotune traffic trace.jsonl --time-unit ms --plot traffic.svg
    autotune traffic metrics.json --match model_name=my-model --study study.toml

    Exit code 0; 4: the traffic cannot be judged, for the reason that is shown; 2: the input is wrong.
    """
    from dataclasses import replace
    from pathlib import Path

    from autotune.cli.output import show
    from autotune.cli.times import duration_s, time_s
    from autotune.files import write_file
    from autotune.report.document import finite
    from autotune.report.svg.traffic_plot import traffic_svg
    from autotune.report.traffic import traffic_document, traffic_report
    from autotune.traffic.judgement import question
    from autotune.traffic.load import load_study
    from autotune.traffic.read import read_traffic
    from costmodel.errors import InputError

    loaded = None if study is None else load_study(Path(study))
    log = read_traffic(
        source,
        window_s=None if window is None else duration_s(window, "--window"),
        now_s=None if now is None else time_s(now, "--now"),
        options=replace(reading, model=None if loaded is None else loaded.arch.name),
    )
    asked = None if loaded is None or log.refusal is not None else question(loaded, log.profile())
    document = finite(traffic_document(log, asked))
    if plot is not None:
        if log.refusal is not None:
            raise InputError.single("--plot", f"cannot be drawn of {source}: {log.refusal}")
        write_file(Path(plot), traffic_svg(document))
    show(document, traffic_report, as_json=as_json)
    sys.exit(0 if log.refusal is None else EXIT_REFUSED)
