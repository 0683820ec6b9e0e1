"""A plan in production of another engine than is searched: what an operator who thinks of moving asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from tests.studies import FOLDER

STUDY = str(FOLDER / "llama-70b-16xh100.toml")
MOVING = ("--set", "engine=sglang", "--set", "search.max_num_batched_tokens=[8192]")
WAYS = {"field": ("--set", "baseline.engine=vllm"), "string": ("--set", "baseline.plan=vllm:R2/PP1/ATP8/ADP1/MTP1/EP1")}


def run(command: str, *arguments: str) -> tuple[int, str]:
    """Exit code and stdout of a command on the study that moves to SGLang."""
    found = CliRunner().invoke(cli, [command, STUDY, *MOVING, *arguments])
    assert "Traceback" not in found.output
    return found.exit_code, found.stdout


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_the_baseline_keeps_its_engine(way: tuple[str, ...], tmp_path: Path) -> None:
    """Tuned, compared and exported: vLLM stays what runs, SGLang is what is searched and written."""

    def answered(command: str, *arguments: str) -> dict[str, Any]:
        code, out = run(command, *way, *arguments, "--json")
        assert code == 0
        return dict(json.loads(out))

    tuned = answered("tune", "--no-storage", "--top", "0")
    assert tuned["baseline"]["engine"] == "vllm"
    assert {p["engine"] for p in tuned["plans"]} == {"sglang"}
    compared = answered("compare")
    assert (compared["current"]["engine"], compared["candidate"]["engine"]) == ("vllm", "sglang")
    assert compared["switch"]["restart"]
    best = tuned["plans"][0]["plan"]
    answered("export", "--target", "sglang", "--plan", best, "--out", str(tmp_path / "a"))
    answered("export", "--target", "sglang", "--from", "baseline", "--out", str(tmp_path / "b"))
    assert "| engine | vllm | sglang |" in (tmp_path / "b" / "README.md").read_text(encoding="utf-8")


def test_a_better_plan_in_production_is_kept() -> None:
    """Where no plan that was searched is before it, the first sentence says keep, not ahead by less than nothing."""
    answer = json.loads(run("tune", *WAYS["field"], "--no-storage", "--json")[1])
    assert answer["baseline"]["rank"] == 1
    assert answer["plans"][0]["plan"].startswith("sglang:")
    code, text = run("tune", *WAYS["field"], "--no-storage", "--table", "--top", "1")
    assert code == 0
    assert "Keep the plan in production: none of the" in text
