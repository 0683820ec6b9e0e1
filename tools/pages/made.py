"""What is made, and what its content is today."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

from autotune.report.answer import answer_report
from autotune.report.study_reference import study_reference
from autotune.report.terminal import Terminal, print_report
from autotune.study import load_study
from autotune.tuning import TuneResult, tune
from tools.pages.front import front_svg
from tools.pages.packages import packages_svg

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "studies" / "deepseek-v3-128xh200.toml"
PLANS, WIDTH = 5, 100
ANSWER = re.compile(r"(?<=<!-- made by: make pages -->\n```text\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
"""Where the answer stands in the README."""


def made() -> dict[str, str]:
    """Path in the repository -> content. Takes one `tune` of a study."""
    result = tune(replace(load_study(STUDY), path=STUDY.relative_to(ROOT)))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return {
        "README.md": ANSWER.sub(lambda _: _answer(result), readme, count=1),
        "docs/front.svg": front_svg(result),
        "docs/packages.svg": packages_svg(ROOT),
        "docs/study-file.md": study_reference(),
    }


def _answer(result: TuneResult) -> str:
    """What `autotune tune STUDY --table` prints on a terminal of `WIDTH` columns."""
    buffer = StringIO()
    console = Terminal(width=WIDTH, file=buffer)
    console.wraps = True
    print_report(console, answer_report(result, top=PLANS))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
