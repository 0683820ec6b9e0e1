"""The model against measurements: validate, calibrate."""

from __future__ import annotations

from typing import Any

import click

from autotune.cli.options import JSON, TABLE


@click.command()
@click.argument("runs", required=False, metavar="[RUNS.csv]", type=click.Path(dir_okay=False))
@click.option("--models", type=click.Path(file_okay=False), help="Folder of config.json files, matched by model name.")
@click.option("--predictions", type=click.Path(dir_okay=False), help="Write a prediction with interval for each run.")
@click.option("--calibration", type=click.Path(dir_okay=False), help="Profile written by `autotune calibrate`.")
@click.option("--published", is_flag=True, help="Compare with published deployments that nothing was fitted on.")
@JSON
@TABLE
def validate(**options: Any) -> None:
    """Predict measured serving runs and say how well: errors, intervals, rankings.

    RUNS.csv has a run per row: gpu, engine, model, isl, osl, concurrency, attn_tp, and more if known (engine_version,
    precision, gemm_dtype, moe_dtype, lengths, pp, attn_dp, moe_tp, moe_ep, ttft_ms, tpot_ms). A closed loop of
    `concurrency` requests over one server.
    """
    from autotune.cli.validate import run_validate

    run_validate(**options)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...", type=click.Path(dir_okay=False))
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Profile to write (TOML).")
@click.option("--models", type=click.Path(file_okay=False), help="Folder of config.json files, matched by model name.")
@click.option("--study", type=click.Path(dir_okay=False), help="What a benchmark's JSON ran on: model, GPU, engine.")
@click.option("--plan", help="The plan it ran with. Default: the study's baseline.")
@JSON
@TABLE
def calibrate(**options: Any) -> None:
    """Make the model yours with a handful of your own runs.

    RUNS are CSV files as `autotune validate` reads them, results of `vllm bench serve --save-result` (.json) or of
    SGLang's bench_serving (.jsonl). At least five runs of each model, GPU and engine. They shift what is known of that
    cell and narrow its interval; a study uses the profile through its `calibration` field.
    """
    from autotune.cli.calibrate import run_calibrate

    run_calibrate(**options)
