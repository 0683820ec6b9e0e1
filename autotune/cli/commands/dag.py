"""The graph of a plan: `autotune dag`."""

from __future__ import annotations

import sys
from typing import Any

import click

from autotune.cli.options import JSON, SET, STUDY, TABLE


@click.command()
@STUDY
@SET
@click.option("--plan", help="Plan to draw, as a short or a full plan string. Default: the study's baseline.")
@click.option(
    "--phase",
    type=click.Choice(["prefill", "decode"]),
    default="decode",
    show_default=True,
    help="One prompt in its chunks, or one token for every running sequence.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "dot", "perfetto", "chakra"]),
    default="json",
    show_default=True,
    help="networkx node-link JSON, Graphviz, Chrome trace for ui.perfetto.dev, or MLCommons Chakra traces.",
)
@click.option("--out", type=click.Path(), help="File to write, for chakra a folder. Default: the document on stdout.")
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
@JSON
@TABLE
def dag(**options: Any) -> None:
    """Draw what a plan of STUDY runs in one step, as a directed acyclic graph with seconds, FLOPs and bytes.

    Nodes are the operators of each GPU, collectives that join the GPUs of their group, and sends between pipeline
    stages. A schedule of the graph gives the length of the step, printed beside the cost model's own.

    \b
    autotune dag STUDY --collapse layer --format dot | dot -Tsvg > plan.svg
    autotune dag STUDY --phase prefill --format perfetto --out prefill.json
    autotune dag STUDY --plan "EP16/PP2/TP4/DP4" --format chakra --out traces/

    Exit code 3: the engine's rules forbid the plan (each is named); 2: the input is wrong.
    """
    from autotune.cli.dag import run_dag

    sys.exit(run_dag(**options))
