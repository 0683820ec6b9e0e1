"""`python -m tests.installed`: from a wheel in an empty environment: data files, and the help of every command.

The commands run in an empty folder without HOME, without a terminal, and with LANG=C.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("--version", "catalog", "schema", "model llama-3.1-8b")
"""What reads data files; every other command says its help."""


def subcommands(autotune: Path, folder: Path) -> list[str]:
    """Every command by name, as the help lists them."""
    text = _run([str(autotune), "--help"], folder).stdout.partition("Commands:\n")[2]
    return [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2] != " "]


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    surroundings = {"PATH": "/usr/bin:/bin", "LANG": "C"}
    return subprocess.run(
        command, cwd=folder, env=surroundings, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def main() -> int:
    """0 where every command ran."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        # what lies on PYTHONPATH would count as installed
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "wheel", "--no-deps", "-w", folder_name, str(ROOT)], check=True, env=env)
        venv.create(folder / "environment", with_pip=False)
        python = folder / "environment" / "bin" / "python"
        wheel = next(folder.glob("*.whl"))
        subprocess.run(
            [*pip, "--python", str(python), "install", "--only-binary", ":all:", str(wheel)], check=True, env=env
        )
        autotune, work = python.with_name("autotune"), folder / "work"
        work.mkdir()
        for command in [*COMMANDS, *(f"{found} --help" for found in subcommands(autotune, work))]:
            done = _run([str(autotune), *command.split()], work)
            bad = done.returncode != 0 or "Traceback" in done.stderr
            failed += bad
            click.echo(f"{'wrong' if bad else 'right'} autotune {command}" + (f": {done.stderr[-400:]}" if bad else ""))
    click.echo(f"{failed} wrong")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
