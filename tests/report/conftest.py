"""Answered studies and their pages, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from autotune.report.html.tune import tune_page
from autotune.study import load_study
from autotune.tuning import TuneResult, tune
from autotune.tuning.sensitivity import sensitivity
from tests.report.browser import Browser, browser, find_browser

STUDIES = Path(__file__).resolve().parents[2] / "studies"
EVIL = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"'&amp; {{ 7*7 }} =cmd()"
"""A name that would run in a page that takes it for markup, in a template that takes it for an expression."""
Page = Callable[..., Path]


@lru_cache(maxsize=32)
def answered(name: str, *overrides: str) -> TuneResult:
    """A shipped study with overrides, answered."""
    return tune(load_study(STUDIES / f"{name}.toml", overrides))


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Pages as files: `page("reference-128", "engine=any")`."""
    folder = tmp_path_factory.mktemp("pages")

    @lru_cache(maxsize=32)
    def made(name: str, *overrides: str) -> Path:
        result = answered(name, *overrides)
        file = folder / f"{abs(hash((name, overrides)))}.html"
        file.write_text(tune_page(result, sensitivity(result, factors=(0.5, 1.0, 2.0))), encoding="utf-8")
        return file

    return made


@pytest.fixture(scope="session")
def tab() -> Iterator[Browser]:
    """A headless Chromium."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with browser(program) as opened:
        yield opened
