"""`autotune divide` end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune.cli.options import EXIT_INFEASIBLE, EXIT_INPUT
from tests.command import autotune
from tests.report.helpers import outline
from tests.studies import FOLDER

STUDY = str(FOLDER / "clusters" / "four-models-256xh100.toml")


def test_end_to_end(tmp_path: Path) -> None:
    """GPUs are handed out in whole nodes and no more than there are; shares and rates agree; the present loses."""
    page = tmp_path / "page.html"
    done = autotune("divide", STUDY, "--json", "--html", str(page))
    assert done.returncode == EXIT_INFEASIBLE, done.stderr
    found = json.loads(done.stdout)
    seen = outline(page.read_text(encoding="utf-8"))
    assert "one node more in the cluster" in seen.text
    assert f"autotune divide {STUDY}" in seen.text
    for period in found["periods"]:
        held = [m["gpus"]["h100_sxm"] for m in period["models"]]
        assert all(n % 8 == 0 for n in held)
        assert sum(held) + period["spare_gpus"]["h100_sxm"] == 256
        for m in (m for m in period["models"] if m["awake"]):
            room = sum(p["capacity_requests_per_s"] for p in m["plans"])
            asked = m["asked_requests_per_s"]
            assert m["served_requests_per_s"] == pytest.approx(min(room, asked))
            assert m["served_frac"] == pytest.approx(m["served_requests_per_s"] / asked)
            assert all(p["gpus_in_use"] <= m["gpus"][p["gpu"]] for p in m["plans"])
    assert found["present"]["lost_value"] == pytest.approx(found["value"] - found["present"]["value"])
    assert found["present"]["lost_value"] > 0.0


def test_a_cluster_that_is_large_enough(tmp_path: Path) -> None:
    """With four times the GPUs every model is served whole, and GPUs are spare, at any time of the day."""
    models = (("chat", ""), ("batch", "awake_h = [20, 8]\n"))
    of_each = [f'[[models]]\nname = "{name}"\nmodel = "llama-3.1-8b"\n{awake}' for name, awake in models]
    study = tmp_path / "study.toml"
    study.write_text(
        'engine = "vllm"\ncluster = { gpus = 16, gpu = "h100_sxm" }\n'
        "workload = { isl = 1000, osl = 100, request_rate_per_s = 450 }\n" + "".join(of_each),
        encoding="utf-8",
    )
    few, enough = (autotune("divide", str(study), "--set", f"cluster.gpus={gpus}", "--json") for gpus in (16, 64))
    assert (few.returncode, enough.returncode) == (EXIT_INFEASIBLE, 0), enough.stderr
    short, found = (json.loads(done.stdout) for done in (few, enough))
    assert found["serves_all"] > short["serves_all"]
    assert short["value"] < short["most_value"]
    assert found["value"] == pytest.approx(found["most_value"])
    assert [len(p["models"]) for p in found["periods"]] == [2, 2, 2]
    assert all(p["spare_gpus"]["h100_sxm"] > 0 for p in found["periods"])


@pytest.mark.parametrize("section", ['[division]\nunit = "node"\n', ""])
def test_a_setting_says_what_is_handed_out(tmp_path: Path, section: str) -> None:
    """`--set division.unit` counts where the file has the table and where it has none; a wrong one is named."""
    shared = [
        f'name = "{name}"\nmodel = "llama-3.1-8b"\n[models.workload]\nisl = 1000\nosl = 100\nrequest_rate_per_s = 20\n'
        for name in ("first", "second")
    ]
    models = "".join(f"[[models]]\n{text}" for text in shared)
    study = tmp_path / "study.toml"
    study.write_text(f'engine = "vllm"\n{section}[cluster]\ngpus = 8\ngpu = "h100_sxm"\n{models}', encoding="utf-8")
    for unit in ("node", "gpu"):
        done = autotune("divide", str(study), "--set", f"division.unit={unit}", "--json")
        assert done.returncode in (0, EXIT_INFEASIBLE), done.stderr
        assert json.loads(done.stdout)["unit"] == unit
    wrong = {"division.unit=rack": "division.unit: must be one of", "division.units=gpu": "division.unit and"}
    for setting, why in wrong.items():
        done = autotune("divide", str(study), "--set", setting)
        assert done.returncode == EXIT_INPUT
        assert why in done.stderr


def test_other_commands_say_where_to_go() -> None:
    """`tune` has no answer to several models and names the command that has."""
    done = autotune("tune", STUDY)
    assert done.returncode == EXIT_INPUT
    assert "autotune divide" in done.stderr
