"""What is made, and what its content is today."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from autotune.report.study_reference import study_reference
from autotune.report.terminal import WIDTH, Terminal, print_report
from autotune.report.tune_text import tune_report
from autotune.study import load_study
from autotune.tuning import TuneResult, tune
from tools.pages.front import front_svg
from tools.pages.packages import packages_svg

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "studies" / "deepseek-v3-128xh200.toml"
PLANS = 3
ANSWER = re.compile(r"(?<=<!-- made by: make pages -->\n```text\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
"""Where the answer stands in the README."""


def made() -> dict[str, str]:
    """Path in the repository -> content. Takes one `tune` of a study."""
    result = tune(load_study(STUDY))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return {
        "README.md": ANSWER.sub(lambda _: _answer(result), readme, count=1),
        "docs/front.svg": front_svg(result),
        "docs/packages.svg": packages_svg(ROOT),
        "docs/study-file.md": study_reference(),
    }


def _answer(result: TuneResult) -> str:
    """What `autotune tune STUDY --table --top 3` prints, up to the end of its table."""
    buffer = StringIO()
    print_report(Terminal(width=WIDTH, file=buffer), tune_report(result, top=PLANS))
    paragraphs = buffer.getvalue().split("\n\n")
    return "\n\n".join("\n".join(line.rstrip() for line in part.splitlines()) for part in paragraphs[:2]) + "\n"
