"""From what runs today to a plan: `autotune import`."""

from __future__ import annotations

from typing import Any

import click

from autotune.cli.options import JSON, SET, TABLE


@click.command(name="import")
@click.argument("source", nargs=-1, required=True, metavar="FILE|COMMAND...")
@click.option("--study", type=click.Path(dir_okay=False), help="Study whose model and GPU count complete the plan.")
@SET
@click.option(
    "--model", "model_name", help="Model that it serves: a catalog name or a config.json. Default: as it says."
)
@click.option("--engine-version", help="Version of the engine that runs. Default: the newest whose options are known.")
@JSON
@TABLE
def import_plan(**options: Any) -> None:
    """Read what runs today as a plan: the `current` of compare and retune.

    Reads a command line of `vllm serve`, `sglang.launch_server` or `trtllm-serve` (quoted, or after `--`), a shell
    script, a Compose file, Kubernetes manifests, or a folder that `autotune export` wrote. Options that the engine's
    version does not know are listed, and the defaults of what was not said.

    \b
    autotune import "vllm serve deepseek-ai/DeepSeek-V3 -tp 8 -dp 2 --enable-expert-parallel"
    autotune import docker-compose.yml --study studies/llama-70b-16xh100.toml
    """
    from autotune.cli.importing import run_import

    run_import(**options)
