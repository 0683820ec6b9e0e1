"""From a plan to launch files: `autotune export`."""

from __future__ import annotations

import sys
from typing import Any

import click

from autotune.cli.options import JSON, SET, STUDY, TABLE


@click.command()
@STUDY
@SET
@click.option(
    "--plan",
    help="Plan string as `autotune tune` prints it, `baseline`, or `best` (the default) of the target's engine.",
)
@click.option(
    "--target",
    required=True,
    help="What to write launch files for: compose, k8s, dynamo, or an engine's name for a script per node.",
)
@click.option(
    "--out", required=True, type=click.Path(file_okay=False), help="Folder to write; new, empty or an export."
)
@click.option("--engine-version", help="Version of the engine, as 0.33.0. Default: the newest whose options are known.")
@click.option(
    "--model", help="What the engine loads: a Hugging Face name or a path on the nodes. Default: the study's."
)
@click.option(
    "--from",
    "current",
    metavar="CURRENT",
    help="What runs now, for the way from there: a plan string, `baseline`, or what `autotune import` reads (an "
    "exported folder, a file, a command).",
)
@click.option("--image", help="Container image for compose, k8s and dynamo. Default: the engine's published one.")
@click.option(
    "--hybrid-lb", is_flag=True, help="Every node of a replica answers HTTP for its own ranks, where the engine can."
)
@JSON
@TABLE
def export(**options: Any) -> None:
    """Write what starts a plan of STUDY, how to check it, a benchmark that verifies it, and a README.

    vllm, sglang, trtllm: a script per node, host names as parameters. compose: Docker Compose, for a plan of one node.
    k8s: a Kustomize base, a Deployment or, where replicas span nodes, a LeaderWorkerSet. dynamo: a
    DynamoGraphDeployment with vLLM. Every option is checked against the option list of the engine's version, and the
    lengths and counts fit the memory model. A plan that the target, the engine or the version cannot express is an
    error (exit code 2) that names the rule; exit code 3: no plan keeps every limit, name one with --plan.

    \b
    autotune export studies/deepseek-v3-128xh200.toml --target vllm --out out/launch
    autotune export studies/qwen3-235b-64xh100.toml --target sglang --set engine=any --from baseline --out out/sg
    autotune export studies/deepseek-v3-128xh200.toml --target k8s --model /models/deepseek-v3 --out out/k8s
    """
    from autotune.cli.export import run_export

    sys.exit(run_export(**options))
