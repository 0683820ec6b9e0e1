"""Pages and pictures that are made from the code are as the code is today."""

from __future__ import annotations

import pytest

from tools.pages.made import ROOT, made


@pytest.fixture(scope="module")
def content() -> dict[str, str]:
    """What the files should hold."""
    return made()


@pytest.mark.parametrize("name", ["README.md", "docs/front.svg", "docs/packages.svg", "docs/study-file.md"])
def test_committed_is_made(name: str, content: dict[str, str]) -> None:
    """The file in the repository is the one that is made today; if not, `make pages` writes it anew."""
    assert (ROOT / name).read_text(encoding="utf-8") == content[name], "run `make pages`"


def test_nothing_is_forgotten(content: dict[str, str]) -> None:
    """The README keeps its answer, and every key of a study stands on the page of the study file."""
    assert "\nNext\n" in content["README.md"]
    for key in ("ttft_ms", "min_p_better", "overlap_frac", "scaleup_gb_per_s"):
        assert f"| `{key}` |" in content["docs/study-file.md"]
