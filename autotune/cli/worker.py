"""`autotune worker`."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path

from autotune.cli.options import wants_json
from autotune.cli.output import progress_bar
from autotune.cli.stores import one_machine_warning, study_store
from autotune.report.files import to_json
from autotune.report.terminal import Terminal
from autotune.study import load_study
from autotune.tuning.executor import open_pool
from autotune.tuning.workers import work


def run_worker(
    *,
    study: str,
    overrides: tuple[str, ...],
    as_json: bool,
    as_table: bool,
    storage: str | None,
    jobs: int,
    backend: str,
    scheduler: str | None,
) -> int:
    """Score until nothing is left; the exit code."""
    start = time.perf_counter()
    loaded = load_study(Path(study), overrides)
    store = study_store(loaded, storage, None)
    quiet = wants_json(as_json, as_table)
    with open_pool(backend, jobs=jobs, scheduler=scheduler) as pool, progress_bar(quiet=quiet) as report:
        share = work(loaded, store, pool, progress=report)
    one_machine_warning(store, share.hosts)
    elapsed_s = time.perf_counter() - start
    if quiet:
        counts = {name: value for name, value in asdict(share).items() if name != "hosts"}
        document = {"study": loaded.name, **counts, "elapsed_s": elapsed_s, "storage": store.location}
        sys.stdout.write(to_json(document))
        return 0
    console = Terminal()
    again = f", {share.twice:,} of them stored meanwhile by a worker that took over" if share.twice else ""
    console.print(f"{loaded.name}: scored {share.scored:,} of {share.plans:,} plans here{again} in {elapsed_s:.1f} s")
    console.print(f"all are in {store.location}; rank them with `autotune tune` and the same --storage", soft_wrap=True)
    return 0
