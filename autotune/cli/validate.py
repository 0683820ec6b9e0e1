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
    """
    from dataclasses import asdict
    from pathlib import Path
    from typing import Any

    from autotune.cli.output import show
    from autotune.engines import traits_by_name
    from autotune.files import write_file
    from autotune.report.document import finite
    from autotune.report.text_blocks import Report
    from autotune.report.validation import published_block, validation_blocks
    from autotune.validation.published import published_points, published_pools
    from autotune.validation.report import predictions_csv, validation_document
    from costmodel.calibration.profile import read_profile
    from costmodel.errors import InputError
    from costmodel.measured.runs import prepare_runs
    from costmodel.measured.runs_csv import read_runs

    if runs is None and not published:
        raise InputError.single("RUNS.csv", "is required, or --published")
    document: dict[str, Any] = {}
    blocks = []
    if runs is not None:
        read = read_runs(Path(runs), traits_by_name(), None if models is None else Path(models))
        batch = prepare_runs(read, None if calibration is None else read_profile(Path(calibration)))
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
