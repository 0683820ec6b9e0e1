"""Every command of the README runs and ends as the README says."""

from __future__ import annotations

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from tests.command import autotune

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


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_readme(command: str, tmp_path: Path) -> None:
    """A command as printed runs, with no word on stderr but the name of a page that it wrote."""
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    done = autotune(*shlex.split(command)[1:], cwd=tmp_path, data=tmp_path / "data")
    assert done.stderr == ("report: report.html\n" if "--html" in command else "")
    assert done.returncode == (3 if FAILS.search(command) else 0)
    assert done.stdout or any(p.name != "studies" for p in tmp_path.iterdir())


def test_the_study_of_the_readme(tmp_path: Path) -> None:
    """The example study is valid and has an answer."""
    text = re.search(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    assert text is not None
    (tmp_path / "study.toml").write_text(text[1], encoding="utf-8")
    done = autotune("tune", "study.toml", "--json", cwd=tmp_path, data=tmp_path / "data")
    assert done.returncode == 0, done.stderr


def test_python_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python examples run as they stand, after the command whose storage one of them goes on with."""
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(examples) >= 2
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    before = next(line for line in README.splitlines() if line.endswith(" --storage sqlite:///plans.db"))
    assert autotune(*before.split()[1:], cwd=tmp_path).returncode == 0
    monkeypatch.chdir(tmp_path)
    for example in examples:
        with redirect_stdout(StringIO()) as shown:
            exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102  # our own page
        assert shown.getvalue().strip()


def test_make_targets_are_named() -> None:
    """The two set-up commands are in the README and in the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("tune", "test"):
        assert f"make {target}" in README
        assert f"\n{target}:" in makefile
