"""`autotune survive` end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune.cli.options import EXIT_INFEASIBLE, EXIT_INPUT
from tests.command import autotune
from tests.report.helpers import outline
from tests.studies import FOLDER

STUDY = str(FOLDER / "survive-llama-70b-64xh100.toml")


def test_end_to_end(tmp_path: Path) -> None:
    """What is left serves the load, places lie on the hosts that they name, shares sum to 1, a loss lengthens tails."""
    page = tmp_path / "page.html"
    done = autotune("survive", STUDY, "--json", "--html", str(page))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    seen = outline(page.read_text(encoding="utf-8"))
    assert "Ways to survive" in seen.text
    assert f"autotune survive {STUDY}" in seen.text
    best = found["best"]
    left = best["replicas"] - best["lost_at_worst"]
    assert left * best["capacity_per_replica_per_s"] >= found["load_requests_per_s"] * (1 - 1e-9)
    assert best["gpus"] <= found["cluster_gpus"]
    assert {w["way"] for w in found["ways"]} <= {"as it is", "more replicas", "smaller replicas", "headroom"}
    for place in found["placement"]["replicas"]:
        first, last = place["gpus"]
        assert place["nodes"] == list(range(first // 8, last // 8 + 1))
        assert place["racks"] == list(range(first // 16, last // 16 + 1))
    plain = found["without_failures"]
    assert plain["gpus"] == plain["gpus_without_failures"] < best["gpus"]
    assert plain["short"].startswith(f"R{plain['replicas_without_failures']} ")
    assert (plain["replicas"], plain["lost_at_worst"]) == (plain["replicas_without_failures"], 0)
    years = found["years"]
    assert sum(years["up_frac"]) == pytest.approx(1.0)
    assert years["availability"] <= years["availability_degraded"] <= 1.0
    peak = found["peak_loss"]
    assert peak["retried"] > 0
    assert peak["with_loss"]["latencies"]["ttft"]["p99"] > peak["without"]["latencies"]["ttft"]["p99"]
    assert peak["with_loss"]["attainment_frac"] <= peak["without"]["attainment_frac"]
    assert found["mtbf_h"]["gpu"] == pytest.approx(79_200)


def test_a_cluster_that_is_too_small() -> None:
    """Where nothing survives, the ways are there with the GPUs that they would take."""
    done = autotune("survive", STUDY, "--set", "resilience.survive=rack", "--set", "resilience.k=4", "--json")
    assert done.returncode == EXIT_INFEASIBLE, done.stderr
    found = json.loads(done.stdout)
    assert found["best"] is None
    assert not any(w["fits"] for w in found["ways"])
    assert all(w["gpus"] > found["cluster_gpus"] for w in found["ways"])


def test_a_word_that_is_none() -> None:
    """What may be lost is a GPU, a host or a rack."""
    done = autotune("survive", STUDY, "--set", "resilience.survive=region")
    assert done.returncode == EXIT_INPUT
    assert "resilience.survive" in done.stderr


def test_a_short_log_has_its_loss_in_its_middle(tmp_path: Path) -> None:
    """A log that ends before the stretch that is looked at would: the loss comes while requests do."""
    log = tmp_path / "log.csv"
    rows = "".join(f"{0.25 * i:.2f},1024,128\n" for i in range(1000))
    log.write_text(f"timestamp,prompt_tokens,output_tokens\n{rows}", encoding="utf-8")
    study = tmp_path / "study.toml"
    study.write_text(
        'model = "llama-3.1-70b"\nengine = "vllm"\ncluster = { gpus = 32, gpu = "h100" }\n'
        'workload = { traffic = "log.csv" }\nconstraints = { ttft_ms = 2000, tpot_ms = 40 }\n'
        'resilience = { survive = "node" }\n',
        encoding="utf-8",
    )
    done = autotune("survive", str(study), "--json")
    assert done.returncode == 0, done.stderr
    peak = json.loads(done.stdout)["peak_loss"]
    assert peak["length_s"] == pytest.approx(249.75)
    assert 0.0 < peak["lost_at_s"] < peak["length_s"]
    assert peak["without"]["attainment_frac"] > 0.9
    assert "A loss at the peak" in autotune("survive", str(study), "--table").stdout
