"""The model against measured runs: `autotune validate`."""

from __future__ import annotations

import click

from autotune.cli.options import MODELS, SHOWN


@click.command()
@click.argument("runs", required=False, metavar="[RUNS.csv]", type=click.Path(dir_okay=False))
@MODELS
@click.option("--predictions", type=click.Path(dir_okay=False), help="Write a prediction with interval for each run.")
@click.option("--calibration", type=click.Path(dir_okay=False), help="Profile written by `autotune calibrate`.")
@click.option("--published", is_flag=True, help="Compare with published deployments that nothing was fitted on.")
@SHOWN
def validate(
    runs: str | None,
    models: str | None,
    predictions: str | None,
    calibration: str | None,
    published: bool,
    as_json: bool,
    as_table: bool,
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
    from dataclasses import asdict
    from pathlib import Path
    from typing import Any

    from autotune.cli.output import progress_bar, show
    from autotune.engines import traits_by_name
    from autotune.files import write_file
    from autotune.report.document import finite
    from autotune.report.text_blocks import Report
    from autotune.report.validation import load_blocks, pool_run_blocks, published_block, validation_blocks
    from autotune.validation.load_report import load_predictions_csv, load_runs_document, predict_load_runs
    from autotune.validation.pool_report import pool_runs_document
    from autotune.validation.published import published_points, published_pools
    from autotune.validation.report import predictions_csv, validation_document
    from costmodel.calibration.profile import read_profile
    from costmodel.errors import InputError
    from costmodel.measured.load_runs_csv import has_percentiles, read_load_runs
    from costmodel.measured.pool_runs import predict_pool_runs
    from costmodel.measured.pool_runs_csv import has_pools, read_pool_runs
    from costmodel.measured.runs import prepare_runs
    from costmodel.measured.runs_csv import read_runs

    if runs is None and not published:
        raise InputError.single("RUNS.csv", "is required, or --published")
    document: dict[str, Any] = {}
    blocks = []
    profile = None if calibration is None else read_profile(Path(calibration))
    folder = None if models is None else Path(models)
    if runs is not None and has_pools(Path(runs)):
        pool_runs = read_pool_runs(Path(runs), traits_by_name(), folder)
        settled = predict_pool_runs(pool_runs)
        if predictions is not None:
            write_file(Path(predictions), predictions_csv(pool_runs, settled.pair))
        document = pool_runs_document(pool_runs, settled)
        blocks = pool_run_blocks(document)
    elif runs is not None and has_percentiles(Path(runs)):
        load_runs = read_load_runs(Path(runs), traits_by_name(), folder)
        with progress_bar(quiet=as_json, title="simulating runs") as report_progress:
            forecasts = predict_load_runs(load_runs, profile, progress=report_progress)
        if predictions is not None:
            write_file(Path(predictions), load_predictions_csv(load_runs, forecasts))
        document = load_runs_document(load_runs, forecasts)
        blocks = load_blocks(document)
    elif runs is not None:
        read = read_runs(Path(runs), traits_by_name(), folder)
        batch = prepare_runs(read, profile)
        estimate = batch.evaluate()
        if predictions is not None:
            write_file(Path(predictions), predictions_csv(read, estimate))
        document = validation_document(batch, estimate)
        blocks = validation_blocks(document)
    if published:
        for key, title, points in (
            ("published", "DeepSeek-V3 on H800", published_points()),
            ("published_pools", "The same as pools of a disaggregated plan", published_pools()),
        ):
            document[key] = [{**asdict(p), "ratio": p.ratio} for p in points]
            blocks.append(published_block(points, title))
    report = Report(headline="Predictions against measurements", blocks=tuple(blocks))
    show(finite(document), lambda _: report, as_json=as_json, as_table=as_table)
