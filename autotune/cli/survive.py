"""What a service needs to survive failures: `autotune survive`."""

from __future__ import annotations

import sys

import click

from autotune.cli.options import EXIT_INFEASIBLE, HTML, QUESTION, SHOWN, Question


@click.command()
@QUESTION
@HTML
@SHOWN
def survive(question: Question, html: str | None, as_json: bool) -> None:
    """Find the fewest GPUs with which STUDY keeps its limits while a GPU, a host or a rack is lost.

    [resilience] of the study says what has to be survived (survive = "gpu", "node" or "rack", and k of them), what has
    to be kept meanwhile (degraded_load_frac, degraded_latency_factor), and how often things fail and how long repairs
    take; failure rates of H100 clusters stand in, with their source. The load is workload.request_rate_per_s, or that
    of a log.

    Three ways are compared: more replicas, smaller ones, or larger ones with headroom. The answer says where replicas
    lie, what a loss takes down and for how long, availability and goodput over simulated years of failures, and what
    requests meet when the loss comes at the traffic's peak.

    \b
    autotune survive studies/survive-llama-70b-64xh100.toml --table
    autotune survive studies/survive-llama-70b-64xh100.toml --set resilience.survive=rack --html page.html

    Exit code 0: it can be survived on the cluster; 3: it cannot; 2: the input is wrong.
    """

    from autotune.cli.output import show, write_page
    from autotune.planning import survive as survived
    from autotune.report.survival import survival_document, survival_report

    document = survival_document(survived(question.load()))
    if html is not None:
        from autotune.report.html.cluster_pages import survival_page

        write_page(html, survival_page(document, made_by=question.command("survive")))
    show(document, survival_report, as_json=as_json)
    sys.exit(0 if document["survives"] else EXIT_INFEASIBLE)
