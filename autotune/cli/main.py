"""The command line. Each command imports what it needs when it runs, so that `--help` is immediate."""

from __future__ import annotations

import sys
from typing import Any

import click

EXIT_INPUT = 2
EXIT_INFEASIBLE = 3
EXIT_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="autotune")
def cli() -> None:
    """Choose how to spread an LLM over a GPU cluster for serving.

    A study is a TOML file: the model, the cluster, the traffic, the limits, and the plan in production.

    \b
    autotune tune studies/reference-128.toml     rank every valid plan against the current one
    autotune space studies/reference-128.toml    list the plans without scoring them
    autotune model deepseek-v3                   what we understood of a model
    autotune catalog                             models and GPUs known by name
    """


STUDY = click.argument("study", type=click.Path(dir_okay=False, path_type=str))
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a field of the study, as constraints.ttft_ms=800 or model=qwen3-235b. Repeatable.",
)
JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON document on stdout and nothing else (the default in a pipe).",
)
TABLE = click.option("--table", "as_table", is_flag=True, help="The table, also in a pipe.")


def _wants_json(as_json: bool, as_table: bool) -> bool:
    """JSON where it is asked for, and in a pipe unless the table is."""
    return as_json or not (as_table or sys.stdout.isatty())


@cli.command()
@STUDY
@SET
@JSON
@TABLE
@click.option("--top", default=15, show_default=True, type=click.IntRange(0), help="Plans to show; 0 for all.")
@click.option("--out", type=click.Path(file_okay=False), help="Folder for result.json, plans.csv and the storage.")
@click.option("--storage", help="Optuna storage: a journal file or a database URL. Default: your data folder.")
@click.option("--no-storage", is_flag=True, help="Keep nothing; score everything again.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1, 1024), help="Processes that score.")
def tune(**options: Any) -> None:
    """Score every valid plan of STUDY and rank them against its baseline.

    Exit code 0: at least one plan keeps every constraint; 3: none does (the nearest ones are shown); 2: the
    input is wrong. Running the same study again answers from its storage.
    """
    from autotune.cli.tune import run_tune

    sys.exit(run_tune(**options))


@cli.command()
@STUDY
@SET
@JSON
@TABLE
def space(study: str, overrides: tuple[str, ...], as_json: bool, as_table: bool) -> None:
    """List the valid layouts of STUDY, and how many each rule forbids, without scoring."""
    from autotune.cli.inspect import run_space

    run_space(study, overrides, as_json=_wants_json(as_json, as_table))


@cli.command()
@click.argument("name", metavar="FILE|NAME")
@JSON
@TABLE
def model(name: str, as_json: bool, as_table: bool) -> None:
    """Show what is understood of a model: a config.json or a name of the catalog."""
    from autotune.cli.inspect import run_model

    run_model(name, as_json=_wants_json(as_json, as_table))


@cli.command()
@JSON
@TABLE
def catalog(as_json: bool, as_table: bool) -> None:
    """List the models and GPUs known by name."""
    from autotune.cli.inspect import run_catalog

    run_catalog(as_json=_wants_json(as_json, as_table))


@cli.command()
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


@cli.command()
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


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a study file."""
    from autotune.report.files import to_json
    from autotune.study import json_schema

    click.echo(to_json(json_schema()), nl=False)


def main() -> None:
    """Run the command line; a user's mistake ends in a message and exit code 2, never in a traceback."""
    from costmodel.errors import InputError

    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was scored is kept", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except InputError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        sys.exit(EXIT_INPUT)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
