"""Every command of the README runs and ends as the README says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("autotune ")
]

FAILS = re.compile("infeasible|evaluate studies/reference-128")
"""Commands whose answer is that a limit is broken."""


def run(arguments: list[str], cwd: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """One `autotune` process with a data folder of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "autotune", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "XDG_DATA_HOME": str(data), "HOME": str(data), "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_readme(command: str, tmp_path: Path) -> None:
    """A command as printed runs, with no word on stderr but the name of a page that it wrote."""
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    done = run(shlex.split(command)[1:], tmp_path, tmp_path / "data")
    assert done.stderr == ("report: report.html\n" if "--html" in command else "")
    assert done.returncode == (3 if FAILS.search(command) else 0)
    assert done.stdout or any(p.name != "studies" for p in tmp_path.iterdir())


def test_the_study_of_the_readme(tmp_path: Path) -> None:
    """The example study is valid and has an answer."""
    text = re.search(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    assert text is not None
    (tmp_path / "study.toml").write_text(text[1], encoding="utf-8")
    done = run(["tune", "study.toml", "--json"], tmp_path, tmp_path / "data")
    assert done.returncode == 0, done.stderr


def test_make_targets_are_named() -> None:
    """The two set-up commands are in the README and in the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("tune", "test"):
        assert f"make {target}" in README
        assert f"\n{target}:" in makefile
