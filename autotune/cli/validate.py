"""The model against measured runs: `autotune validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from autotune.cli.options import MODELS, SHOWN, NewFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from autotune.report.text_blocks import Block
    from costmodel.calibration.profile import Profile
    from costmodel.hardware import Gpu


@click.command()
@click.argument("runs", required=False, metavar="[RUNS.csv]", type=click.Path(dir_okay=False))
@MODELS
@click.option("--study", type=click.Path(dir_okay=False), help="Whose GPU rows may name beside the catalog's.")
@click.option("--predictions", type=NewFile(), help="Write a prediction with interval for each run.")
@click.option("--calibration", type=click.Path(dir_okay=False), help="Profile written by `autotune calibrate`.")
@click.option("--published", is_flag=True, help="Compare with published deployments that nothing was fitted on.")
@SHOWN
def validate(
    runs: str | None,
    models: str | None,
    study: str | None,
    predictions: str | None,
    calibration: str | None,
    published: bool,
    as_json: bool,
) -> None:
    """Predict measured serving runs and say how well: errors, intervals, rankings.

    RUNS.csv has a run per row: gpu, engine, model, isl, osl, concurrency, attn_tp, and more if known (engine_version,
    precision, gemm_dtype, moe_dtype, lengths, pp, attn_dp, moe_tp, moe_ep, ttft_ms, tpot_ms). A closed loop of
    `concurrency` requests over one server.

    Runs with percentiles are simulated: request_rate_per_s (or concurrency), arrivals (constant, poisson, or a
    coefficient of variation), requests, duration_s, isl_mean, isl_p5, isl_p50, isl_p95, osl_... alike,
    shared_prefix_tokens, distinct_prefixes, max_num_batched_tokens, max_num_seqs, and what was measured: ttft_..._ms
    and e2e_..._ms (mean, p50, p90, p95, p99), tpot_mean_ms. Any but gpu, engine and model may be empty.

    Disaggregated runs have the layout of both pools: prefill_attn_tp, decode_attn_tp, ... alike, prefill_workers,
    decode_workers, prefill_max_num_seqs, decode_max_num_seqs, prefill_max_num_batched_tokens,
    decode_redundant_experts.
    """
    from pathlib import Path

    from autotune.cli.measured import gpus_of
    from autotune.cli.output import show
    from autotune.files import write_file
    from autotune.report.document import finite
    from autotune.report.text_blocks import Report
    from costmodel.errors import InputError

    if runs is None and not published:
        raise InputError.single("RUNS.csv", "is required, or --published")
    judged = _Judged(document={}, blocks=(), predictions="")
    if runs is not None:
        given = _Given(Path(runs), None if models is None else Path(models), gpus_of(study))
        judged = _judged(given, None if calibration is None else Path(calibration))
        if predictions is not None:
            write_file(Path(predictions), judged.predictions)
    document, blocks = judged.document, judged.blocks
    if published:
        more = _published()
        document, blocks = {**document, **more.document}, (*blocks, *more.blocks)
    report = Report(headline="Predictions against measurements", blocks=blocks)
    show(finite(document), lambda _: report, as_json=as_json)


class _Judged(NamedTuple):
    """Runs against their predictions: as a document, for people, and the predictions alone as CSV."""

    document: dict[str, Any]
    blocks: tuple[Block, ...]
    predictions: str


class _Given(NamedTuple):
    """A file of runs, the folder of their models if there is one, and GPUs that are not the catalog's, by name."""

    runs: Path
    models: Path | None
    own_gpus: Mapping[str, Gpu]


def _judged(given: _Given, calibration: Path | None) -> _Judged:
    """A file of runs of whichever kind its columns say."""
    from costmodel.calibration.profile import read_profile
    from costmodel.errors import InputError
    from costmodel.measured.load_runs_csv import has_percentiles
    from costmodel.measured.pool_runs_csv import has_pools

    if has_pools(given.runs):
        if calibration is not None:
            raise InputError.single("--calibration", f"is of single servers, and {given.runs} holds disaggregated runs")
        return _of_pools(given)
    profile = None if calibration is None else read_profile(calibration)
    return (_with_percentiles if has_percentiles(given.runs) else _of_means)(given, profile)


def _of_pools(given: _Given) -> _Judged:
    from autotune.engines import traits_by_name
    from autotune.report.validation import pool_run_blocks
    from autotune.validation.pool_report import pool_runs_document
    from autotune.validation.report import predictions_csv
    from autotune.validation.startable import require_startable
    from costmodel.measured.pool_runs import predict_pool_runs
    from costmodel.measured.pool_runs_csv import COLUMNS, read_pool_runs

    read = read_pool_runs(given.runs, traits_by_name(), given.models, given.own_gpus)
    require_startable(((run.id, entry) for run in read for entry in (run.prefill, run.decode)), given.runs)
    settled = predict_pool_runs(read)
    document = pool_runs_document(read, settled, COLUMNS.said_of(given.runs))
    return _Judged(document, tuple(pool_run_blocks(document)), predictions_csv(read, settled.pair))


def _with_percentiles(given: _Given, profile: Profile | None) -> _Judged:
    from autotune.cli.output import progress_bar
    from autotune.engines import traits_by_name
    from autotune.report.validation import load_blocks
    from autotune.validation.load_report import load_predictions_csv, load_runs_document, predict_load_runs
    from autotune.validation.startable import require_startable
    from costmodel.measured.load_runs_csv import COLUMNS, read_load_runs

    read = read_load_runs(given.runs, traits_by_name(), given.models, given.own_gpus)
    require_startable(((run.id, run.entry) for run in read), given.runs)
    with progress_bar(quiet=False, title="simulating runs") as progress:
        forecasts = predict_load_runs(read, profile, progress=progress)
    document = load_runs_document(read, forecasts, profile, COLUMNS.said_of(given.runs))
    return _Judged(document, tuple(load_blocks(document)), load_predictions_csv(read, forecasts))


def _of_means(given: _Given, profile: Profile | None) -> _Judged:
    from autotune.engines import traits_by_name
    from autotune.report.validation import validation_blocks
    from autotune.validation.report import predictions_csv, validation_document
    from autotune.validation.startable import require_startable
    from costmodel.measured.runs import prepare_runs
    from costmodel.measured.runs_csv import COLUMNS, read_runs

    read = read_runs(given.runs, traits_by_name(), given.models, given.own_gpus)
    require_startable(((run.id, run.entry) for run in read), given.runs)
    batch = prepare_runs(read, profile)
    estimate = batch.evaluate()
    document = validation_document(batch, estimate, profile, COLUMNS.said_of(given.runs))
    return _Judged(document, tuple(validation_blocks(document)), predictions_csv(read, estimate))


def _published() -> _Judged:
    from dataclasses import asdict

    from autotune.report.validation import published_block
    from autotune.validation.published import published_points, published_pools

    document, blocks = {}, []
    for key, title, points in (
        ("published", "DeepSeek-V3 on H800", published_points()),
        ("published_pools", "The same as pools of a disaggregated plan", published_pools()),
    ):
        document[key] = [{**asdict(p), "ratio": p.ratio} for p in points]
        blocks.append(published_block(points, title))
    return _Judged(document, tuple(blocks), "")
