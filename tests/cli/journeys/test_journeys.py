"""Forty jobs and forty mistakes: what a person must see, whole at every width of a terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune import comparison, evaluation, tuning
from autotune.cli.main import main
from autotune.comparison import best, peer_picks
from autotune.evaluation import evaluate_plan
from autotune.launch import export
from autotune.tuning import pareto_front
from tests.cli.journeys.screens import JOBS, MISTAKES, ROOT, SCREENS, WIDTHS, Job, Mistake, Screen, screen
from tests.remembered import asked_once

ANSWERS = ("first-answer", "quick", "no-plan-fits", "too-large", "fewest-gpus", "pools")
ANSWER_LINES = 20


@pytest.fixture(scope="module", autouse=True)
def _answered_once() -> Iterator[None]:
    """Many screens are of one answer, which is found once."""
    tunes = [(module, "tune") for module in (tuning, best, evaluate_plan, export, peer_picks)]
    others = (
        (comparison, "compare"),
        (evaluation, "evaluate"),
        (pareto_front, "pareto"),
        (peer_picks, "explain_picks"),
    )
    with asked_once(*tunes, *others):
        yield


@pytest.mark.usefixtures("few_requests")
@pytest.mark.parametrize("job", [job for job in JOBS if not job.recorded], ids=lambda job: job.name)
def test_a_job_is_done(job: Job) -> None:
    """A person sees what the job is about, with the exit code that the manual names."""
    is_done(job, screen(job.words, 120))


def is_done(job: Job, seen: Screen) -> None:
    """What any job must show, at a width at which nothing is cut."""
    assert seen.code == job.code, seen.errors
    words = " ".join(seen.shown.split())
    assert all(part in words for part in job.sees), seen.shown
    assert "…" not in words.replace("SPLIT…", "") or job.name in ("catalog", "model", "schema", "graph")


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: " ".join(mistake.words))
def test_a_mistake_is_told(mistake: Mistake) -> None:
    """A wrong command line ends in code 2 and a message that names what is wrong, never in a traceback."""
    seen = screen(mistake.words, 80)
    assert seen.code == 2, seen.errors + seen.shown
    assert "Traceback" not in seen.errors
    assert all(part in seen.errors for part in mistake.sees), seen.errors


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("job", [job for job in JOBS if job.recorded], ids=lambda job: job.name)
def test_a_screen_is_as_recorded(job: Job, width: int) -> None:
    """The job is done, on the screen that was reviewed; `python -m tests.cli.journeys` records them anew."""
    seen = screen(job.words, width)
    shown = seen.shown
    if width == 120:
        is_done(job, seen)
    assert shown == (SCREENS / f"{job.name}-{width}.txt").read_text(encoding="utf-8")
    wide = [line for line in shown.splitlines() if len(line) > width and not line.strip().startswith("autotune ")]
    assert not wide
    assert width != 80 or job.name not in ANSWERS or len(shown.splitlines()) <= ANSWER_LINES


def test_next_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that an answer names runs as it stands, with the settings that the answer was asked with."""
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    asked = "autotune tune studies/llama-70b-16xh100.toml --table --set engine=any --set 'baseline.plan=R4 TP4'"

    def run(command: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True))
        try:
            main()
        except SystemExit as done:
            return int(done.code or 0), capsys.readouterr().out
        return 0, capsys.readouterr().out

    code, answer = run(asked)
    assert code == 0
    steps = [line.strip() for line in answer.partition("\nNext\n")[2].splitlines() if line.strip()]
    assert [step.split()[1] for step in steps] == ["compare", "export", "verify"]
    for step in steps[:-1]:
        assert "--set engine=" in step
        assert run(step)[0] == 0, step
    assert Path("launch/bench.sh").exists()
