"""Retune again and again: `autotune schedule`."""

from __future__ import annotations

import sys
from typing import Any

import click


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
def schedule(**options: Any) -> None:
    """Run `autotune retune STUDY` at an interval: print units for systemd, cron or Kubernetes, or loop.

    \b
    autotune schedule studies/qwen3-235b-64xh100.toml --traffic requests.csv --state state --every 1h --emit k8s
    autotune schedule studies/qwen3-235b-64xh100.toml --traffic requests.csv --state state --every 10m --loop

    For systemd and cron, paths are made absolute; for Kubernetes they are taken as paths in the pod.
    """
    from autotune.cli.schedule import run_schedule

    sys.exit(run_schedule(**options))
