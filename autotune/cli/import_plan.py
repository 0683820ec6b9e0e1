"""From what runs today to a plan: `autotune import`."""

from __future__ import annotations

import click

from autotune.cli.options import SET, SHOWN, VARIABLES, given_variables


@click.command(name="import")
@click.argument("source", nargs=-1, required=True, metavar="FILE|COMMAND...")
@click.option("--study", type=click.Path(dir_okay=False), help="Study whose model and GPU count complete the plan.")
@SET
@click.option(
    "--model", "model_name", help="Model that it serves: a catalog name or a config.json. Default: as it says."
)
@VARIABLES
@click.option("--engine-version", help="Version of the engine that runs. Default: the newest whose options are known.")
@SHOWN
def import_plan(
    source: tuple[str, ...],
    study: str | None,
    overrides: tuple[str, ...],
    model_name: str | None,
    variables: tuple[str, ...],
    engine_version: str | None,
    as_json: bool,
) -> None:
    """Read what runs today as a plan: the `current` of compare and retune.

    Reads a command line of `vllm serve`, `sglang.launch_server`, `trtllm-serve` or Dynamo's workers, as such or in
    `docker run` (quoted, or after `--`), a shell or Slurm script, a Compose file, Kubernetes manifests, values of Helm
    charts, KServe and Ray Serve resources, or a folder that `autotune export` wrote. How many GPUs that are comes
    first. Options that the engine's version does not know are listed, and the defaults of what was not said; a
    variable that nothing sets is asked for (--var).

    \b
    autotune import "vllm serve deepseek-ai/DeepSeek-V3 -tp 8 -dp 2 --enable-expert-parallel"
    autotune import docker-compose.yml --study studies/llama-70b-16xh100.toml
    """
    import shlex
    from pathlib import Path

    from autotune.cli.output import show
    from autotune.launch.reading.import_plan import import_plan as read_plan
    from autotune.report.launch import import_document, import_report
    from autotune.traffic.load import load_study
    from costmodel.errors import InputError

    if overrides and study is None:
        raise InputError.single("--set", "changes fields of a study: name it with --study")
    loaded = None if study is None else load_study(Path(study), overrides)
    text = source[0] if len(source) == 1 else shlex.join(source)
    imported = read_plan(text, version=engine_version, study=loaded, model=model_name, given=given_variables(variables))
    show(import_document(imported), import_report, as_json=as_json)
