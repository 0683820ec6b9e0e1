"""Files to try the other commands with: `autotune sample`."""

from __future__ import annotations

import click

from autotune.cli.options import NewFile

SAMPLES = {"traffic": "traffic.csv", "runs": "runs.csv", "result": "result.json"}


@click.command()
@click.argument("what", type=click.Choice(list(SAMPLES)))
@click.option("--out", type=NewFile(), help="File to write, instead of standard output.")
def sample(what: str, out: str | None) -> None:
    """Print a file to try a command with, until you have one of your own.

    traffic: an hour of made-up requests. runs: five published measurements of Llama-3.1-70B on H100. result: what
    `vllm bench serve` writes, with made-up figures, for R2 TP8 of studies/llama-70b-16xh100.toml.

    \b
    autotune sample traffic --out requests.csv
    autotune sample runs --out my_runs.csv
    autotune sample result --out result.json
    """
    from importlib.resources import files
    from pathlib import Path

    from autotune.files import write_file

    text = (files("autotune.cli") / "samples" / SAMPLES[what]).read_text(encoding="utf-8")
    if out is None:
        click.echo(text, nl=False)
    else:
        write_file(Path(out), text)
