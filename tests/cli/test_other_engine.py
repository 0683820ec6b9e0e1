"""A plan in production of another engine than is searched: what an operator who thinks of moving asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from tests.studies import FOLDER

STUDY = str(FOLDER / "qwen3-235b-64xh100.toml")
SMALL = ("cluster.gpus=16", "workload.concurrency=64", "search.max_num_batched_tokens=[8192]", "engine=sglang")
MOVING = tuple(x for o in SMALL for x in ("--set", o))
WAYS = {
    "field": ("--set", "baseline.engine=vllm", "--set", "baseline.plan=R2/PP1/ATP8/ADP1/MTP1/EP8"),
    "string": ("--set", "baseline.plan=vllm:R2/PP1/ATP8/ADP1/MTP1/EP8"),
}


def run(command: str, *arguments: str) -> tuple[int, str]:
    """Exit code and stdout of a command on the study that moves to SGLang."""
    found = CliRunner().invoke(cli, [command, STUDY, *MOVING, *arguments])
    assert "Traceback" not in found.output
    return found.exit_code, found.stdout


def answered(command: str, *arguments: str, way: str = "field") -> dict[str, Any]:
    """The document that a command answers with."""
    code, out = run(command, *WAYS[way], *arguments, "--json")
    assert code == 0
    return dict(json.loads(out))


@pytest.fixture(scope="module")
def tuned() -> dict[str, Any]:
    """The answer where the engine of the plan in production is a field of its own."""
    return answered("tune", "--no-storage", "--top", "0")


def test_a_plan_string_may_name_its_engine(tuned: dict[str, Any]) -> None:
    """The engine before the plan and the engine as a field are the same question."""
    said = answered("tune", "--no-storage", "--top", "0", way="string")
    assert (said["plans"], said["counts"]) == (tuned["plans"], tuned["counts"])
    assert said["baseline"]["engine"] == tuned["baseline"]["engine"] == "vllm"


def test_the_baseline_keeps_its_engine(tuned: dict[str, Any], tmp_path: Path) -> None:
    """Tuned, compared and exported: vLLM stays what runs, SGLang is what is searched and written."""
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
    plan = ("--set", "baseline.plan=trtllm:R2/PP1/ATP8/ADP1/MTP2/EP4", "--set", "baseline.kv_dtype=fp8")
    better = (*plan, "--no-storage")
    code, out = run("tune", *better, "--top", "0", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["baseline"]["rank"] == 1
    assert found["plans"][0]["plan"].startswith("sglang:")
    code, text = run("tune", *better, "--table", "--top", "1")
    assert code == 0
    assert "Keep the plan in production: none of" in " ".join(text.split())
