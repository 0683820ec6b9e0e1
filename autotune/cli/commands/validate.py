"""The model against measurements: validate, calibrate, verify."""

from __future__ import annotations

from typing import Any

import click

from autotune.cli.options import JSON, SET, TABLE


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
@click.option(
    "--study",
    type=click.Path(dir_okay=False),
    help="What a benchmark's JSON ran on: model, GPU, engine. Default: study.json that an export wrote beside it.",
)
@click.option("--plan", help="The plan it ran with. Default: what the result or the export says, else the baseline.")
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


@click.command()
@click.argument("result", type=click.Path(dir_okay=False))
@click.option(
    "--study", type=click.Path(dir_okay=False), help="Default: study.json that an export wrote beside the result."
)
@SET
@click.option("--plan", help="The plan that ran. Default: what the result or the export says, else the baseline.")
@JSON
@TABLE
def verify(**options: Any) -> None:
    """Hold a benchmark of a plan against its prediction, and say whether the ranking would change.

    RESULT is what the benchmark script of an export wrote: `vllm bench serve` JSON or SGLang's JSONL. For each run:
    TTFT, TPOT and throughput, predicted with their 80 % interval (p10 to p90) and measured. Then the run is learnt, as
    `autotune calibrate` would, and the study ranked again: does the same plan lead? The exit code is 0 whatever comes
    out; 2: the input is wrong.

    \b
    autotune verify out/launch/result.json
    autotune verify result.json --study studies/deepseek-v3-128xh200.toml --plan R8/TP2/DP8/EP16 --json
    """
    from autotune.cli.verify import run_verify

    run_verify(**options)
