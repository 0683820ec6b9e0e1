"""`compare --current COMMAND`: the server that runs is scored with what it is started with, and the rest is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from tests.studies import SMALL

LIMITS = "constraints = { ttft_ms = 1000, tpot_ms = 40 }\n"
SERVE = "vllm serve meta-llama/Llama-3.1-8B-Instruct -tp 1 -dp 8"


def asked(tmp_path: Path, options: str) -> dict[str, Any]:
    """`compare` with a command as the current plan."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL + LIMITS, encoding="utf-8")
    words = ["compare", str(path), "--current", f"{SERVE} {options}", "--json"]
    found: dict[str, Any] = json.loads(CliRunner().invoke(cli, words, catch_exceptions=False).output)
    return found


def test_a_command_s_options_are_scored(tmp_path: Path) -> None:
    """Four sequences at once make 128 requests wait: `--current` said 99 % and a TTFT of 50 ms of such a server."""
    plain, few = asked(tmp_path, ""), asked(tmp_path, "--max-num-seqs 4")
    ttft = {m["name"]: m for m in few["metrics"]}["ttft_longest_s"]
    assert ttft["current"] == pytest.approx(10.066, rel=0.01)
    assert ttft["candidate"] == {m["name"]: m for m in plain["metrics"]}["ttft_longest_s"]["candidate"]
    assert few["rule"] == "limit_broken"
    eager = {m["name"]: m for m in asked(tmp_path, "--enforce-eager")["metrics"]}
    assert eager["tpot_s"]["current"] == pytest.approx(0.0172, rel=0.01)


def test_what_is_not_priced_is_said_and_leaves_nothing_sure(tmp_path: Path) -> None:
    """In the document, in the assumptions and under the verdict, as it was written; both are to be measured."""
    plain, offloads = asked(tmp_path, "--max-num-seqs 4"), asked(tmp_path, "--max-num-seqs 4 --cpu-offload-gb 10")
    assert (plain["verdict"], plain["never_measured"], plain["p_better"]) == ("switch", [], 1.0)
    assert (offloads["rule"], offloads["p_better"]) == ("not_measured", 0.8)
    assert offloads["never_measured"] == ["options that are not priced"]
    found = asked(tmp_path, "--cpu-offload-gb 10 --num-gpu-blocks-override 500")
    assert found["not_priced"] == ["--cpu-offload-gb 10", "--num-gpu-blocks-override 500"]
    assert any("--cpu-offload-gb 10" in text for text in found["assumptions"])
    words = ["compare", str(tmp_path / "small.toml"), "--current", f"{SERVE} --cpu-offload-gb 10", "--table"]
    assert "--cpu-offload-gb 10" in CliRunner().invoke(cli, words, catch_exceptions=False).output.split("Metrics")[0]
    assert asked(tmp_path, "--cpu-offload-gb 0 --port 9000")["not_priced"] == []
    weights = asked(tmp_path, "--quantization bitsandbytes --dtype float32")
    assert weights["not_priced"] == ["--quantization bitsandbytes", "--dtype float32"]
