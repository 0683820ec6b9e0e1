"""Retune again and again: `autotune schedule`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from autotune.cli.retune import retune, run
from autotune.cli.unattended import absolute, program, said, source

PASSED = (
    "overrides",
    "approximate",
    "time_unit",
    "block_tokens",
    "max_bad",
    "match",
    "current",
    "variables",
    "min_cover",
)
"""Parameters of `autotune retune` that are given to every run as they stand."""
STANDS = {"STUDY": "study.toml", "--traffic": "traffic.csv", "--state": "state"}
"""What a unit names where nothing is given: files to put in place."""


def _passed_on(command: click.Command) -> click.Command:
    """With the options of `PASSED`, said as `autotune retune` says them."""
    command.params += [parameter for parameter in run.params if parameter.name in PASSED]
    return command


@_passed_on
@click.command()
@click.argument("study", required=False, type=click.Path(dir_okay=False))
@click.option("--traffic", metavar="FILE|URL", help="As for `autotune retune`.")
@click.option("--state", type=click.Path(file_okay=False), help="As for `autotune retune`.")
@click.option("--every", default="1h", show_default=True, metavar="TIME", help="Interval: 10m, 1h, 6h, 24h.")
@click.option("--window", default="24h", show_default=True, metavar="TIME", help="How far back each run looks.")
@click.option("--apply", is_flag=True, help="Let each run make a recommended switch the current plan.")
@click.option("--metrics", type=click.Path(dir_okay=False), help="Prometheus text file that each run replaces.")
@click.option(
    "--emit", type=click.Choice(["systemd", "cron", "k8s"]), help="Print units that run it, instead of running it."
)
@click.option("--loop", is_flag=True, help="Run in the foreground until SIGTERM or Ctrl-C.")
@click.option("--name", default="autotune-retune", show_default=True, help="Of the unit or CronJob.")
@click.option("--image", default="autotune:latest", show_default=True, help="Container image, for k8s.")
@click.option(
    "--volume-claim", default="autotune-state", show_default=True, help="Claim that holds the files, for k8s."
)
@click.option("--mount", default="/data", show_default=True, help="Where the pod sees it, and its working folder.")
def schedule(
    study: str | None,
    traffic: str | None,
    state: str | None,
    every: str,
    window: str,
    apply: bool,
    metrics: str | None,
    emit: str | None,
    loop: bool,
    name: str,
    image: str,
    volume_claim: str,
    mount: str,
    **_passed: object,
) -> None:
    """Run `autotune retune STUDY` at an interval: print units for systemd, cron or Kubernetes, or loop.

    \b
    autotune schedule studies/qwen3-235b-64xh100.toml --traffic requests.csv --state state --every 1h --emit k8s
    autotune schedule studies/qwen3-235b-64xh100.toml --traffic requests.csv --state state --every 10m --loop

    For systemd and cron, paths are made absolute; for Kubernetes they are taken as paths in the pod.
    """
    from autotune.cli.times import duration_s
    from autotune.retuning.scheduler_units import EMIT, cron_interval_s, job
    from autotune.traffic.address import AUTHORIZATION, holds_secret
    from costmodel.errors import InputError

    if (emit is None) != loop:
        raise InputError.single("--emit", "exactly one of --emit and --loop must be given")
    if loop and (study is None or traffic is None or state is None):
        raise InputError.single("--loop", "needs STUDY, --traffic and --state")
    given = {"STUDY": study, "--traffic": traffic, "--state": state}
    for word, value in given.items():
        if value is None:
            click.echo(f"assumed: {word} not given: {STANDS[word]}", err=True)
    study, traffic, state = (value or STANDS[word] for word, value in given.items())
    if holds_secret(traffic):
        message = f"must hold no password or token, which units and process lists show: give it in {AUTHORIZATION}"
        raise InputError.single("--traffic", message)
    seconds = duration_s(every, "--every")
    duration_s(window, "--window")
    here = emit in ("systemd", "cron")
    if here and given["STUDY"] is not None and not Path(study).is_file():
        raise InputError.single("STUDY", f"must be a file on this machine, where {emit} runs it; there is no {study}")
    if here and given["--traffic"] is not None and "://" not in traffic and not Path(traffic).exists():
        click.echo(f"assumed: --traffic {traffic} is not there: every run ends with an error until it is", err=True)
    place = absolute if here else str
    command = ["retune", place(study), "--traffic", source(traffic, place)]
    command += ["--state", place(state), "--window", window]
    command += ["--apply"] if apply else []
    command += said(click.get_current_context(), PASSED, place)
    command += ["--metrics", place(metrics)] if metrics is not None else []
    if emit is None:
        _loop(seconds, study, command[1:])
        return
    starts = ("autotune",) if emit == "k8s" else program()
    interval_s = cron_interval_s(seconds, every)
    made = job(
        name=name, command=(*starts, *command), every_s=interval_s, image=image, volume_claim=volume_claim, mount=mount
    )
    click.echo(EMIT[emit](made), nl=False)


def _loop(seconds: float, study: str, arguments: list[str]) -> None:
    """`autotune retune` with these arguments again and again, until a signal."""
    from autotune.retuning.scheduler_units import run_every
    from autotune.traffic.load import load_study
    from costmodel.errors import InputError

    load_study(Path(study))

    def once() -> None:
        try:
            retune.main(arguments, standalone_mode=False)
        except SystemExit:  # the command's exit code, which a loop has no use for
            sys.stdout.flush()
        except InputError as error:
            # a log that is away for a moment must not end the loop
            click.echo(f"error: {error}", err=True)
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)  # nobody reads any more

    run_every(seconds, once)
