"""A first study file: `autotune init`."""

from __future__ import annotations

import sys
from typing import Any

import click

from autotune.cli.options import NewFile
from autotune.cli.quick import QUICK_OPTIONS

EXAMPLE = {"model": "deepseek-v3", "gpus": 128, "gpu": "h200", "isl": 4000, "osl": 1000, "ttft": 5000.0, "tpot": 50.0}


@click.command()
@QUICK_OPTIONS
@click.option("--out", type=NewFile(), help="File to write. Default: standard output.")
def init(quick: dict[str, Any], out: str | None) -> None:
    """Write a commented study file, of the options given and of an example where none is.

    \b
    autotune init --model deepseek-v3 --gpus 128 --gpu h200 --isl 4000 --osl 1000 --tpot 50 --out my-study.toml
    autotune tune my-study.toml

    Exit code 0: written; 2: the input is wrong, or the file is there already.
    """
    from pathlib import Path

    from autotune.files import write_file
    from autotune.study.quick import quick_study
    from costmodel.errors import InputError

    asked = any(value is not None for value in quick.values())
    text = quick_study(quick if asked else quick | EXAMPLE)
    if out is None:
        sys.stdout.write(text)
        return
    if Path(out).exists():
        raise InputError.single("--out", f"must not be there yet, got {out}")
    write_file(Path(out), text)
    sys.stdout.write(f"study: {out}\n")
