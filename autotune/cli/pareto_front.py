"""`autotune tune --pareto`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from autotune.cli.options import EXIT_INFEASIBLE
from autotune.files import write_file
from autotune.report.files import plans_csv, to_json
from autotune.report.pareto_front import front_document, print_front
from autotune.storage import Store
from autotune.study import Study
from autotune.tuning.executor import Pool
from autotune.tuning.pareto_front import pareto

WIDTH = 140


def run_front(
    study: Study,
    store: Store | None,
    pool: Pool,
    progress: Callable[[int, int], None],
    *,
    as_json: bool,
    top: int,
    out: str | None,
) -> int:
    """Find and print the front; the exit code."""
    front = pareto(study, store, pool=pool, progress=progress)
    if out is not None:
        everything = front_document(front, top=0)
        write_file(Path(out) / "pareto.json", to_json(everything))
        write_file(Path(out) / "pareto.csv", plans_csv(everything))
    if as_json:
        sys.stdout.write(to_json(front_document(front, top=top)))
    else:
        print_front(Console(width=None if sys.stdout.isatty() else WIDTH), front, top=top)
    return 0 if front.points else EXIT_INFEASIBLE
