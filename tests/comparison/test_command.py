"""`autotune compare` as a user meets it: JSON in a pipe, tables, Markdown, wrong input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.cli.main import main as run_main

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = str(ROOT / "studies" / "reference-128.toml")
LLAMA = str(ROOT / "studies" / "llama-70b-16xh100.toml")


def run(*arguments: str) -> str:
    """Standard output of the command."""
    result = CliRunner().invoke(cli, ["compare", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A study of a dense model whose requests in flight are given, so that no load has to be solved for."""
    text = Path(LLAMA).read_text(encoding="utf-8")
    assert "request_rate_per_s = 8 " in text
    path = tmp_path_factory.mktemp("closed") / "llama-70b-16xh100.toml"
    path.write_text(text.replace("request_rate_per_s = 8 ", "concurrency = 64 "), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The reference study's comparison, as a pipe gets it."""
    found: dict[str, Any] = json.loads(run(REFERENCE))
    return found


def test_a_pipe_gets_the_whole_comparison(document: dict[str, Any]) -> None:
    """Every part of the contract is there."""
    for name in ("verdict", "rule", "reason", "p_better", "metrics", "margins", "memory_bytes", "time", "where_from"):
        assert document[name] not in (None, [], {}), name
    assert (document["verdict"], document["rule"]) == ("undecided", "not_measured")
    assert "pipeline stages" in document["never_measured"]
    assert document["cost"] is None
    assert document["switch"]["gpus_restarted"] == 128
    assert document["robustness"]["workload"]["scenarios"] == 29


def test_differences_are_what_they_say(document: dict[str, Any]) -> None:
    """Difference and share of every metric follow from the two values beside them."""
    for row in document["metrics"]:
        assert math.isclose(row["difference"], row["candidate"] - row["current"], abs_tol=1e-12)
        assert math.isclose(row["difference_frac"], row["candidate"] / row["current"] - 1.0, abs_tol=1e-12)


def test_the_table_names_the_verdict_and_what_was_assumed(closed: str) -> None:
    """The terminal shows each part, the verdict first, the defaults of the switch among the assumptions."""
    text = run(closed, "--candidate", "TP4/PP2", "--table", "--verbose")
    for part in (
        "Metrics",
        "Where it comes from",
        "How far that holds",
        "Cost of a million tokens at $2.5",
        "The switch",
    ):
        assert part in text
    assert "switch.startup_s not given: vllm 120 s" in text
    assert text.index("KEEP") < text.index("Metrics")


def test_markdown_has_whole_tables(closed: str, tmp_path: Path) -> None:
    """Every row of a Markdown table has as many cells as its head, and --out writes the same text."""
    text = run(closed, "--candidate", "TP4/PP2", "--format", "markdown")
    run(closed, "--candidate", "TP4/PP2", "--format", "markdown", "--out", str(tmp_path / "c.md"))
    assert (tmp_path / "c.md").read_text() == text
    cells = 0
    for line in text.splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        found = line.replace("\\|", "").count("|")
        assert cells in (0, found), line
        cells = found
    assert text.startswith("# llama-70b-16xh100: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([REFERENCE, "--candidate", "TP3"], "--candidate: "),
        ([REFERENCE, "--current", "bogus"], "--current: "),
        ([REFERENCE, "--format", "markdown", "--json"], "--format: must not be given with --json"),
        ([REFERENCE, "--set", "switch.startup_s=-1"], "$.switch.startup_s: "),
        ([REFERENCE, "--set", "retune.min_p_better=2"], "$.retune.min_p_better: "),
        ([REFERENCE, "--set", "switch.weights_from=tape"], "$.switch.weights_from: "),
    ],
)
def test_wrong_input_is_named(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and the path of what is wrong, no traceback."""
    monkeypatch.setattr("sys.argv", ["autotune", "compare", *arguments])
    with pytest.raises(SystemExit, match="2"):
        run_main()
    assert f"error: {said}" in capsys.readouterr().err
