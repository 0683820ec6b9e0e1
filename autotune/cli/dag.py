"""The graph of a plan: `autotune dag`."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import click

from autotune.cli.options import EXIT_INFEASIBLE, QUESTION, SHOWN, NewFile, Question


@click.command()
@QUESTION
@click.option("--plan", help="Plan to draw, as a short or a full plan string. Default: the study's baseline.")
@click.option(
    "--phase",
    type=click.Choice(["prefill", "decode", "both"]),
    help="One prompt in its chunks, or one token for every running sequence; of a disaggregated plan also both, with "
    "the KV transfer between the pools. Default: decode, of a disaggregated plan both.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "dot", "perfetto", "chakra"]),
    default="json",
    show_default=True,
    help="networkx node-link JSON, Graphviz, Chrome trace for ui.perfetto.dev, or MLCommons Chakra traces.",
)
@click.option("--out", type=NewFile(), help="File to write, for chakra a folder. Default: the document on stdout.")
@click.option(
    "--replicas",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="How many of the plan's replicas to draw; they are identical and share nothing.",
)
@click.option(
    "--collapse",
    type=click.Choice(["layer", "rank"]),
    help="A view to read: rank joins the ranks of a stage, layer the operators of a layer as well.",
)
@SHOWN
def dag(
    question: Question,
    plan: str | None,
    phase: str | None,
    form: str,
    out: str | None,
    replicas: int,
    collapse: str | None,
    as_json: bool,
) -> None:
    """Draw what a plan of STUDY runs in one step, as a directed acyclic graph with seconds, FLOPs and bytes.

    Nodes are the operators of each GPU, collectives that join the GPUs of their group, and sends between pipeline
    stages. A schedule of the graph gives the length of the step, printed beside the cost model's own.

    \b
    autotune dag STUDY --collapse layer --format dot | dot -Tsvg > plan.svg
    autotune dag STUDY --phase prefill --format perfetto --out prefill.json
    autotune dag STUDY --plan "EP16/PP2/TP4/DP4" --format chakra --out traces/
    autotune dag STUDY --plan "P8:TP8+D8:TP8" --phase both --format perfetto --out pools.json

    Exit code 3: the engine's rules forbid the plan (each is named); 2: the input is wrong.
    """
    from pathlib import Path

    from autotune.cli.output import show
    from autotune.graph import InvalidPlanError, plan_graph, write_graph
    from autotune.graph.export.files import TEXTS
    from autotune.report.dag import dag_document, dag_report
    from costmodel.errors import InputError

    if form == "chakra" and out is None:
        raise InputError.single("--out", "chakra writes a file per GPU: name a folder")
    if form == "chakra" and collapse is not None:
        raise InputError.single("--collapse", "chakra writes a file per GPU: leave it out")
    loaded = question.load()
    try:
        with _working(f"drawing {phase or 'the plan'}"):
            graph = plan_graph(loaded, plan, phase, replicas, collapse)
    except InvalidPlanError as error:
        for violation in error.violations:
            click.echo(f"error: {error.plan} breaks {violation.rule}: {violation.message}", err=True)
        sys.exit(EXIT_INFEASIBLE)
    if out is None:
        for piece in TEXTS[form](graph):
            sys.stdout.write(piece)
        return
    with _working(f"writing {graph.num_nodes:,} nodes as {form}"):
        written = write_graph(graph, form, Path(out))
    show(dag_document(graph, form, written), dag_report, as_json=as_json)


def _working(text: str) -> AbstractContextManager[object]:
    """A spinner on a terminal: the graph of a thousand GPUs takes several seconds."""
    from autotune.report.terminal import Terminal

    return Terminal(stderr=True).status(text) if sys.stderr.isatty() else nullcontext()
