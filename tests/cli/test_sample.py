"""The sample files, which make every command of the README run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import autotune

STUDY = str(Path(__file__).parents[2] / "studies" / "llama-70b-16xh100.toml")


@pytest.mark.parametrize(
    ("what", "name", "command"),
    [
        ("traffic", "requests.csv", ("traffic", "requests.csv", "--json")),
        ("runs", "my_runs.csv", ("calibrate", "my_runs.csv", "--out", "mine.toml", "--json")),
        ("result", "result.json", ("verify", "result.json", "--study", STUDY, "--plan", "R2 TP8", "--json")),
    ],
)
def test_a_sample_is_read(what: str, name: str, command: tuple[str, ...], tmp_path: Path) -> None:
    """What `sample` prints is a whole file of its kind for the command that reads it."""
    autotune("sample", what, "--out", name, cwd=tmp_path)
    assert (tmp_path / name).read_text(encoding="utf-8") == autotune("sample", what).stdout
    done = autotune(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_run_of_retune_is_one_line(tmp_path: Path) -> None:
    """In a pipe, as under cron, a run is one line, and a window that was decided on before is one too."""
    (tmp_path / "requests.csv").write_text(autotune("sample", "traffic").stdout, encoding="utf-8")
    command = ("retune", STUDY, "--traffic", "requests.csv", "--state", "state")
    first, second = (autotune(*command, cwd=tmp_path).stdout.splitlines() for _ in range(2))
    assert len(first) == len(second) == 1
    assert " keep: " in first[0]
    assert "decided on before" in second[0]
