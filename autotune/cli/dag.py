"""`autotune dag`."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click

from autotune.cli.options import EXIT_INFEASIBLE, wants_json
from autotune.graph import InvalidPlanError, plan_graph, write_graph
from autotune.graph.export.files import TEXTS
from autotune.report.console import Terminal
from autotune.report.dag import dag_document, print_dag
from autotune.report.files import to_json
from autotune.study import load_study
from costmodel.errors import InputError


def run_dag(
    *,
    study: str,
    overrides: tuple[str, ...],
    plan: str | None,
    phase: str,
    form: str,
    out: str | None,
    replicas: int,
    collapse: str | None,
    as_json: bool,
    as_table: bool,
) -> int:
    """Draw a plan; the exit code."""
    if form == "chakra" and out is None:
        raise InputError.single("--out", "chakra writes a file per GPU: name a folder")
    if form == "chakra" and collapse is not None:
        raise InputError.single("--collapse", "chakra writes a file per GPU: leave it out")
    loaded = load_study(Path(study), overrides)
    try:
        with _working(f"drawing {phase}"):
            graph = plan_graph(loaded, plan, phase, replicas, collapse)
    except InvalidPlanError as error:
        for violation in error.violations:
            click.echo(f"error: {error.plan} breaks {violation.rule}: {violation.message}", err=True)
        return EXIT_INFEASIBLE
    if out is None:
        for piece in TEXTS[form](graph):
            sys.stdout.write(piece)
        return 0
    with _working(f"writing {graph.num_nodes:,} nodes as {form}"):
        written = write_graph(graph, form, Path(out))
    if wants_json(as_json, as_table):
        sys.stdout.write(to_json(dag_document(graph, form, written)))
    else:
        print_dag(Terminal(width=None if sys.stdout.isatty() else 120), graph, form, written)
    return 0


def _working(text: str) -> AbstractContextManager[object]:
    """A spinner on a terminal: the graph of a thousand GPUs takes several seconds."""
    return Terminal(stderr=True).status(text) if sys.stderr.isatty() else nullcontext()
