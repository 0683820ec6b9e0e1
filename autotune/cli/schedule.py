"""`autotune schedule`."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import click

from autotune.cli.retune import duration_s, run_retune
from autotune.retuning.scheduler_units import EMIT, job
from autotune.study import load_study
from costmodel.errors import InputError

STUDY_FILE, TRAFFIC, STATE = "study.toml", "traffic.csv", "state"
"""What a unit names where nothing is given: files to put in place."""


def run_schedule(
    *,
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
) -> int:
    """Print units, or run; the exit code."""
    if (emit is None) != loop:
        raise InputError.single("--emit", "exactly one of --emit and --loop must be given")
    if loop and (study is None or traffic is None or state is None):
        raise InputError.single("--loop", "needs STUDY, --traffic and --state")
    for word, given, stands in (
        ("STUDY", study, STUDY_FILE),
        ("--traffic", traffic, TRAFFIC),
        ("--state", state, STATE),
    ):
        if given is None:
            click.echo(f"assumed: {word} not given: {stands}", err=True)
    study, traffic, state = study or STUDY_FILE, traffic or TRAFFIC, state or STATE
    seconds = duration_s(every, "--every")
    duration_s(window, "--window")
    if loop:
        load_study(Path(study))
        _loop(seconds, study, traffic, state, window, apply=apply, metrics=metrics)
        return 0
    inside = emit == "k8s"
    program = "autotune" if inside else shutil.which("autotune") or str(Path(sys.argv[0]).resolve())
    place = str if inside else _absolute
    command = [program, "retune", place(study), "--traffic", traffic if "://" in traffic else place(traffic)]
    command += ["--state", place(state), "--window", window]
    command += ["--apply"] if apply else []
    command += ["--metrics", place(metrics)] if metrics is not None else []
    made = job(name=name, command=tuple(command), every_s=seconds, image=image, volume_claim=volume_claim, mount=mount)
    click.echo(EMIT[str(emit)](made), nl=False)
    return 0


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _loop(
    seconds: float, study: str, traffic: str, state: str, window: str, *, apply: bool, metrics: str | None
) -> None:
    from autotune.retuning.loop import run_every  # the scheduler is for those who loop

    def once() -> None:
        try:
            run_retune(
                study=study,
                overrides=(),
                traffic=traffic,
                state=state,
                window=window,
                now=None,
                apply=apply,
                detailed_exitcode=False,
                metrics=metrics,
                as_json=not sys.stdout.isatty(),
                as_table=sys.stdout.isatty(),
            )
            sys.stdout.flush()
        except InputError as error:
            # a log that is away for a moment must not end the loop
            click.echo(f"error: {error}", err=True)
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)  # nobody reads any more

    run_every(seconds, once)
