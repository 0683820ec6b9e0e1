"""Score and rank: `autotune tune`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from autotune.cli.options import (
    BACKEND,
    EXIT_INFEASIBLE,
    FLAGS,
    JOBS,
    READING,
    SCHEDULER,
    SET,
    STORAGE,
    NewFile,
    wants_json,
)
from autotune.cli.quick import QUICK_OPTIONS, study_file
from autotune.cli.shard import SHARD, read_shard, run_shard, shard_report

if TYPE_CHECKING:
    from autotune.report.text_blocks import Block, Report
    from autotune.storage import Store
    from autotune.study import Study
    from autotune.traffic.options import ReadOptions
    from autotune.tuning.executor import Executor

Progress = Callable[[int, int], None]
FEW, MANY = 5, 15
"""Plans that are shown where nobody says how many: in the short answer, and elsewhere."""
POOLED_WIDTH = 32
"""Columns more where plans have two layouts."""


@click.command()
@click.argument("study", type=click.Path(dir_okay=False, path_type=str), required=False)
@SET
@QUICK_OPTIONS
@FLAGS
@click.option("--top", type=click.IntRange(0), help="Plans to show; 0 for all. Default: 5; 15 with -v and in JSON.")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Everything: 15 plans with all figures, what was left out and why, every assumption.",
)
@click.option("--out", type=click.Path(file_okay=False), help="Folder for result.json, plans.csv and the storage.")
@click.option(
    "--html",
    type=NewFile(),
    help="Report for people: one self-contained page with charts, and up to where the choice holds.",
)
@click.option(
    "--pareto",
    is_flag=True,
    help="The Pareto front of throughput, TTFT, TPOT and (where prices are given) cost, instead of a ranking.",
)
@click.option(
    "--traffic",
    metavar="FILE|URL",
    help="Request log, or metrics of a server, whose lengths, rate and arrivals take the place of [workload]'s.",
)
@READING
@STORAGE
@click.option("--no-storage", is_flag=True, help="Keep nothing; score everything again.")
@SHARD
@JOBS
@BACKEND
@SCHEDULER
def tune(
    study: str | None,
    overrides: tuple[str, ...],
    quick: dict[str, Any],
    as_json: bool,
    as_table: bool,
    top: int | None,
    verbose: bool,
    out: str | None,
    html: str | None,
    pareto: bool,
    traffic: str | None,
    reading: ReadOptions,
    storage: str | None,
    no_storage: bool,
    shard: str | None,
    jobs: int,
    backend: str,
    scheduler: str | None,
) -> None:
    """Score every valid plan of STUDY and rank them against its baseline.

    Without a file, --model, --gpus, --gpu, --isl and --osl say what is asked; the file that they stand for is kept.

    Exit code 0: at least one plan keeps every constraint; 3: none does (the nearest ones are shown); 2: the
    input is wrong. Running the same study again answers from its storage. Several machines share the work on a Dask or
    Ray cluster (--backend), or by taking a fixed share each (--shard) into one storage.
    """
    from autotune.cli.output import progress_bar, show, write_page
    from autotune.cli.stores import damage_warning, front_store, study_store
    from autotune.files import write_file
    from autotune.report.document import plans_csv
    from autotune.report.files import to_json
    from autotune.report.study_words import file_block
    from autotune.traffic.load import load_study
    from autotune.tuning.executor import open_executor
    from costmodel.errors import InputError

    named, text = study_file(study, quick)
    loaded = load_study(Path(named), overrides, traffic=traffic, options=reading)
    if pareto and html is not None:
        raise InputError.single("--html", "must go without --pareto: the page is of a ranking, and draws its front")
    other = "--html" if html is not None else "--pareto" if pareto else None
    share = None if shard is None else read_shard(shard, no_storage=no_storage, other=other)
    store = None if no_storage else (front_store if pareto else study_store)(loaded, storage, out)
    quiet = wants_json(as_json, as_table)
    with open_executor(backend, jobs=jobs, scheduler=scheduler) as executor, progress_bar(quiet=quiet) as report:
        if share is not None:
            shard_document = run_shard(loaded, store, share, executor, report)
        else:
            answer = (_front if pareto else _ranking)(loaded, store, executor, report)
    damage_warning(store)
    if share is not None:
        show(shard_document, shard_report, as_json=quiet)
        return
    if out is not None:
        everything = answer.document(0)
        write_file(Path(out) / answer.files[0], to_json(everything))
        write_file(Path(out) / answer.files[1], plans_csv(everything, gpu=loaded.cluster.gpu.name))
    if html is not None and answer.page is not None:
        with progress_bar(quiet=as_json, title="changing the study") as report:
            page = answer.page(report)
        write_page(html, page)
    if wants_json(as_json, as_table):
        sys.stdout.write(to_json(answer.document(MANY if top is None else top)))
    else:
        _print(answer, top, verbose=verbose, after=[file_block(named, text, whole=verbose)] if text else [])
    sys.exit(0 if answer.feasible else EXIT_INFEASIBLE)


def _print(answer: _Answer, top: int | None, *, verbose: bool, after: Sequence[Block]) -> None:
    """The answer on standard output, short or whole, and what comes after it."""
    from autotune.report.terminal import WIDTH, print_blocks, print_report, stdout_console

    if verbose:
        print_report(stdout_console(WIDTH + answer.wider), answer.report(MANY if top is None else top))
    else:
        print_report(stdout_console(), answer.short(FEW if top is None else top))
    print_blocks(stdout_console(), after)


class _Answer(NamedTuple):  # no dataclass: --help does without what those import
    """A ranking or a Pareto front, ready to be shown; the numbers asked for are plans, 0 for all."""

    document: Callable[[int], dict[str, Any]]
    report: Callable[[int], Report]
    page: Callable[[Progress], str] | None
    """None: it has none."""
    files: tuple[str, str]
    """Names of its document and of its table in --out."""
    feasible: bool
    short: Callable[[int], Report]
    """What a terminal shows without --verbose."""
    wider: int = 0
    """Columns that its table needs beyond the usual."""


def _ranking(study: Study, store: Store | None, executor: Executor, progress: Progress) -> _Answer:
    from autotune.launch.export import refusals
    from autotune.report.answer import answer_document, answer_report, tune_report
    from autotune.tuning import tune as answer

    result = answer(study, store, executor=executor, progress=progress)
    refusal = refusals(study)

    def page(progress: Progress) -> str:
        from autotune.report.html.tune import tune_page  # the template engine is for those who want a page
        from autotune.tuning.sensitivity import sensitivity

        return tune_page(result, sensitivity(result, progress=progress), refusal)

    return _Answer(
        document=lambda top: answer_document(result, top=top, refusal=refusal),
        report=lambda top: tune_report(result, top=top, refusal=refusal),
        short=lambda top: answer_report(result, top=top, refusal=refusal),
        page=page,
        files=("result.json", "plans.csv"),
        feasible=bool(result.ranked),
        wider=0 if result.pools is None else POOLED_WIDTH,
    )


def _front(study: Study, store: Store | None, executor: Executor, progress: Progress) -> _Answer:
    from autotune.report.pareto_front import BRIEF, front_document, front_report
    from autotune.report.text_blocks import brief
    from autotune.tuning.pareto_front import pareto

    front = pareto(study, store, executor=executor, progress=progress)
    return _Answer(
        document=lambda top: front_document(front, top=top),
        report=lambda top: front_report(front, top=top),
        short=lambda top: brief(front_report(front, top=top), BRIEF),
        page=None,
        files=("pareto.json", "pareto.csv"),
        feasible=bool(front.points),
    )
