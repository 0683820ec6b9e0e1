"""Records the screens of every journey anew: `python -m tests.cli.journeys`."""

from __future__ import annotations

from tests.cli.journeys.screens import JOBS, SCREENS, WIDTHS, screen

if __name__ == "__main__":
    SCREENS.mkdir(exist_ok=True)
    for old in SCREENS.glob("*.txt"):
        old.unlink()
    for job in JOBS:
        for width in WIDTHS if job.recorded else ():
            (SCREENS / f"{job.name}-{width}.txt").write_text(screen(job.words, width).shown, encoding="utf-8")
