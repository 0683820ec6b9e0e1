"""The command `autotune`."""

from __future__ import annotations

import gc
import os
import sys

import click

from autotune.cli.lazy_group import LazyGroup
from autotune.cli.options import EXIT_INPUT, EXIT_INTERRUPTED
from autotune.version import VERSION

COMMANDS = {
    "init": "init",
    "tune": "tune",
    "space": "space",
    "model": "model",
    "catalog": "catalog",
    "schema": "schema",
    "validate": "validate",
    "calibrate": "calibrate",
    "evaluate": "evaluate",
    "explain": "explain",
    "simulate": "simulate",
    "plan-day": "plan_day:plan_day",
    "traffic": "traffic",
    "divide": "divide",
    "survive": "survive",
    "compare": "compare",
    "retune": "retune",
    "schedule": "schedule",
    "dag": "dag",
    "export": "export",
    "import": "import_plan:import_plan",
    "verify": "verify",
    "study": "study",
    "sample": "sample",
}

GARBAGE_LOOKED_FOR = (300_000, 20, 20)
"""What is imported stays: looking for garbage among it as often as Python does takes a tenth of a short command."""


@click.group(
    cls=LazyGroup, homes=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(VERSION, prog_name="autotune")
def cli() -> None:
    """Choose how to spread an LLM over a GPU cluster for serving.

    A study is a TOML file: the model, the cluster, the traffic, the limits, and the plan in production.

    \b
    autotune tune --model deepseek-v3 --gpus 128 --gpu h200 --isl 4000 --osl 1000 --tpot 50
    autotune init --out my-study.toml      a commented study file to start from
    autotune tune my-study.toml            rank every valid plan against the current one
    autotune traffic requests.csv          what a log or metrics say
    autotune catalog                       models and GPUs known by name
    """


def main() -> None:
    """Run the command line; a user's mistake ends in a message and exit code 2, never in a traceback."""
    if os.name != "posix":
        click.echo("error: autotune runs on Linux and macOS: its file locks are those of POSIX; use WSL", err=True)
        sys.exit(EXIT_INPUT)
    # the matrices are small: a second thread of NumPy's BLAS only spins, and takes a fifth of the CPU time of a replay
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # pydantic would read what every installed package declares, in search of plugins
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(*GARBAGE_LOOKED_FOR)
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        _fail(error)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was scored is kept", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except ValueError as error:
        from costmodel.errors import InputError  # whoever raises one has imported it: --help does without

        if not isinstance(error, InputError):
            raise
        for line in error.told():
            click.echo(f"error: {line}", err=True)
        sys.exit(EXIT_INPUT)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _fail(error: click.ClickException) -> None:
    """Click's own complaints, in the spelling of ours."""
    text = error.format_message().rstrip(".")
    click.echo(f"error: {text[:1].lower()}{text[1:]}", err=True)
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    if ctx is not None:
        click.echo(f"try: {ctx.command_path} --help", err=True)
    sys.exit(EXIT_INPUT)
