"""A calibration of the user's own: `autotune calibrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from autotune.cli.options import MODELS, SHOWN, NewFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...", type=click.Path(dir_okay=False))
@click.option("--out", required=True, type=NewFile(), help="Profile to write (TOML).")
@MODELS
@click.option(
    "--study",
    type=click.Path(dir_okay=False),
    help="What a benchmark's JSON ran on: model, GPU, engine. Default: study.json that an export wrote beside it. Of a "
    "CSV, whose GPU its rows may name beside the catalog's.",
)
@click.option("--plan", help="The plan that a result ran with. Default: what it or the export says, else the baseline.")
@SHOWN
def calibrate(
    runs: tuple[str, ...],
    out: str,
    models: str | None,
    study: str | None,
    plan: str | None,
    as_json: bool,
) -> None:
    """Make the model yours with a handful of your own runs.

    RUNS are CSV files as `autotune validate` reads them, or results of a benchmark (.json, .jsonl, .yaml): `vllm bench
    serve`, SGLang's bench_serving, AIPerf, GuideLLM, inference-perf, InferenceX, llm-d-benchmark. At least five runs of
    each model, GPU and engine. They shift what is known of that cell, and make its interval narrower, or wider
    where they scatter; a study uses the profile through its `calibration` field. Of a result without a mean TTFT its
    percentiles count.
    """
    from pathlib import Path

    from autotune.cli.measured import bench_results, gpus_of
    from autotune.cli.output import show
    from autotune.engines import traits_by_name
    from autotune.files import write_file
    from autotune.report.document import finite
    from autotune.report.validation import calibration_document, calibration_report
    from autotune.validation.bench import SUFFIXES
    from autotune.validation.percentiles import run_by_percentiles
    from autotune.validation.startable import require_startable
    from costmodel.calibration.profile import profile_text
    from costmodel.errors import InputError, Problem
    from costmodel.measured.csv_columns import read_columns
    from costmodel.measured.learn_profile import calibrate as learn
    from costmodel.measured.runs_csv import read_runs

    paths = [Path(name) for name in runs]
    _require_once(paths)
    if plan is not None and not any(path.suffix in SUFFIXES for path in paths):
        raise InputError.single(
            "--plan", f"is of a benchmark's result; rows of {paths[0]} have their layout in columns"
        )
    read, by_percentiles = [], 0
    for path in paths:
        if path.suffix in SUFFIXES:
            _, results = bench_results(path, study, plan)
            no_use = [(r.run.id, why) for r in results if (why := r.teaches_nothing) is not None]
            if no_use:
                raise InputError(Problem(path=at, message=f"teaches nothing: it {why}") for at, why in no_use)
            for run, percentiles in map(run_by_percentiles, results):
                read.append(run)
                by_percentiles += percentiles > 0
        else:
            rows = read_runs(path, traits_by_name(), None if models is None else Path(models), gpus_of(study))
            if "tpot_ms" not in read_columns(path):
                raise InputError.single(str(path), "must have the column tpot_ms, which all is learnt from; lacks it")
            require_startable(((run.id, run.entry) for run in rows), path)
            read += rows
    profile, changes = learn(read)
    write_file(Path(out), profile_text(profile))
    document = finite({"profile": out, "runs_by_percentiles": by_percentiles, "cells": calibration_document(changes)})
    show(document, lambda _: calibration_report(changes, out, by_percentiles), as_json=as_json)


def _require_once(paths: Sequence[Path]) -> None:
    """Runs that are given twice would count twice.

    Raises:
        InputError: two paths are one file, or two files have one content.
    """
    from hashlib import sha256
    from pathlib import Path

    from autotune.validation.bench import MAX_BENCH_BYTES
    from costmodel.errors import InputError, Problem
    from costmodel.files import read_file

    seen: dict[bytes, Path] = {}
    problems = []
    for path in filter(Path.is_file, paths):  # a pipe can be read but once
        digest = sha256(read_file(path, MAX_BENCH_BYTES)).digest()
        if digest in seen:
            problems.append(
                Problem(path=str(path), message=f"must be other runs than {seen[digest]}: it holds the same")
            )
        seen.setdefault(digest, path)
    if problems:
        raise InputError(problems)
