"""`autotune tune`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from autotune.cli.options import EXIT_INFEASIBLE
from autotune.report.document import tune_document
from autotune.report.files import plans_csv, to_json, write_atomic
from autotune.report.table import print_tune
from autotune.study import Store, Study, default_location, load_study, open_store, study_fingerprint
from autotune.tuning import tune

TABLE_WIDTH = 156
"""Columns of the table where the terminal does not say: in a file or a pipe."""


def run_tune(
    *,
    study: str,
    overrides: tuple[str, ...],
    as_json: bool,
    as_table: bool,
    top: int,
    out: str | None,
    storage: str | None,
    no_storage: bool,
    jobs: int,
) -> int:
    """Answer a study; the exit code."""
    loaded = load_study(Path(study), overrides)
    store = None if no_storage else _store(loaded, storage, out)
    with _progress(quiet=as_json) as report:
        result = tune(loaded, store, jobs=jobs, progress=report)
    if out is not None:
        everything = tune_document(result, top=0)
        write_atomic(Path(out) / "result.json", to_json(everything))
        write_atomic(Path(out) / "plans.csv", plans_csv(everything))
    if as_json or not (as_table or sys.stdout.isatty()):
        sys.stdout.write(to_json(tune_document(result, top=top)))
    else:
        print_tune(Console(width=None if sys.stdout.isatty() else TABLE_WIDTH), result, top=top)
    return 0 if result.ranked else EXIT_INFEASIBLE


def _store(study: Study, storage: str | None, out: str | None) -> Store:
    location = storage or default_location(None if out is None else Path(out))
    return open_store(
        location,
        study.name,
        study_fingerprint(study),
        (study.objective.direction,),
        gpus=study.cluster.gpus,
    )


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal for what takes longer than two seconds."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    import time

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("scoring plans"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=None)
    started, shown = time.monotonic(), False

    def report(done: int, total: int) -> None:
        nonlocal shown
        if not shown and time.monotonic() - started > 2.0:
            bar.start()
            shown = True
        bar.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if shown:
            bar.stop()
