"""`autotune tune`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from autotune.cli.options import EXIT_INFEASIBLE
from autotune.files import write_file
from autotune.report.console import Terminal
from autotune.report.document import tune_document
from autotune.report.files import plans_csv, to_json
from autotune.report.table import print_tune
from autotune.storage import Store, default_location, open_store
from autotune.study import Study, cluster_choices, load_study, study_fingerprint
from autotune.tuning import tune
from autotune.tuning.executor import open_pool
from autotune.tuning.pareto_front import study_goals
from autotune.tuning.sensitivity import sensitivity
from costmodel.errors import InputError

TABLE_WIDTH = 156
"""Columns of the table where the terminal does not say: in a file or a pipe."""
POOLED_WIDTH = 32
"""Columns more where plans have two layouts."""


def run_tune(
    *,
    study: str,
    overrides: tuple[str, ...],
    as_json: bool,
    as_table: bool,
    top: int,
    out: str | None,
    html: str | None,
    storage: str | None,
    no_storage: bool,
    jobs: int,
    backend: str,
    scheduler: str | None,
    pareto: bool,
) -> int:
    """Answer a study; the exit code."""
    loaded = load_study(Path(study), overrides)
    if pareto:
        if html is not None:
            raise InputError.single("--html", "must go without --pareto: the page is of a ranking, and draws its front")
        from autotune.cli.pareto_front import run_front

        where = None if no_storage else front_store(loaded, storage, out)
        with open_pool(backend, jobs=jobs, scheduler=scheduler) as pool, progress_bar(quiet=as_json) as report:
            return run_front(
                loaded, where, pool, report, as_json=as_json or not (as_table or sys.stdout.isatty()), top=top, out=out
            )
    store = None if no_storage else study_store(loaded, storage, out)
    with open_pool(backend, jobs=jobs, scheduler=scheduler) as pool, progress_bar(quiet=as_json) as report:
        result = tune(loaded, store, pool=pool, progress=report)
    if store is not None:
        one_machine_warning(store, store.other_hosts)
    if out is not None:
        everything = tune_document(result, top=0)
        write_file(Path(out) / "result.json", to_json(everything))
        write_file(Path(out) / "plans.csv", plans_csv(everything))
    if html is not None:
        with progress_bar(quiet=as_json, title="changing the study") as report:
            found = sensitivity(result, progress=report)
        from autotune.report.html.tune import tune_page  # the template engine is for those who want a page

        write_file(Path(html), tune_page(result, found))
        if not as_json:
            sys.stderr.write(f"report: {html}\n")
    if as_json or not (as_table or sys.stdout.isatty()):
        sys.stdout.write(to_json(tune_document(result, top=top)))
    else:
        width = TABLE_WIDTH + (0 if result.pools is None else POOLED_WIDTH)
        print_tune(Terminal(width=None if sys.stdout.isatty() else width), result, top=top)
    return 0 if result.ranked else EXIT_INFEASIBLE


def study_store(study: Study, storage: str | None, out: str | None) -> Store:
    """Where the trials of a study are kept: what was asked for, else the output folder, else the user's data folder."""
    location = storage or default_location(None if out is None else Path(out))
    return open_store(
        location,
        study.name,
        study_fingerprint(study),
        (study.objective.direction,),
        gpus=most_gpus(study),
    )


def front_store(study: Study, storage: str | None, out: str | None) -> Store:
    """As `study_store`, of the study's Pareto front: an Optuna study of its own, with an objective per goal."""
    return open_store(
        storage or default_location(None if out is None else Path(out)),
        f"{study.name}-pareto",
        study_fingerprint(study),
        tuple(direction for _, direction in study_goals(study)),
        gpus=most_gpus(study),
    )


def most_gpus(study: Study) -> int:
    """The most GPUs that any plan of the study has."""
    return max(c.gpus for c in (*cluster_choices(study), *study.axes.other_gpus))


def one_machine_warning(store: Store, hosts: frozenset[str]) -> None:
    """Say so where several machines were seen on a storage that serves one."""
    if store.one_machine and hosts:
        sys.stderr.write(
            f"warning: {store.location} is used from {', '.join(sorted(hosts))} as well: a file serves the workers of "
            "one machine, several machines need --storage postgresql://…\n"
        )


@contextmanager
def progress_bar(*, quiet: bool, title: str = "scoring plans") -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal for what takes longer than two seconds."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    import time

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Terminal(stderr=True),
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
