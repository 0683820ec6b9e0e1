"""An engine that nobody ships goes the whole way by the commands' own functions: one file, no other is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.engines import ENGINES, Engine, traits_by_name
from autotune.report.html.tune import tune_page
from autotune.study import load_study
from autotune.tuning import tune
from costmodel.calibration.residual import residual_columns
from costmodel.errors import InputError
from costmodel.measured.runs_csv import read_runs
from tests.engines.invented import Lantern
from tests.studies import FOLDER

QWEN, LLAMA = str(FOLDER / "qwen3-235b-64xh100.toml"), str(FOLDER / "llama-70b-16xh100.toml")
ONE_NODE = (
    *("cluster.gpus=8", "baseline.plan=tp8/ep8", "engine=any", "workload.concurrency=64"),
    "search.max_num_batched_tokens=[8192]",
)
"""A study of one node in which all engines compete under one load."""
SET = tuple(x for o in ONE_NODE for x in ("--set", o))


def answered(*words: str, code: int = 0) -> str:
    """What a command prints."""
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def test_without_it_nobody_knows_it() -> None:
    """A study, a plan string and a target that name it are errors that list the engines there are."""
    assert "lantern" not in ENGINES
    with pytest.raises(InputError, match="must be one of 'vllm', 'sglang', 'trtllm' or 'any', got 'lantern'"):
        load_study(LLAMA, ["engine=lantern"])
    with pytest.raises(InputError, match="cannot read 'lantern:tp8'"):
        answered("compare", LLAMA, "--candidate", "lantern:tp8")
    with pytest.raises(InputError, match="must be one of vllm, sglang, trtllm, compose, k8s, dynamo"):
        answered("export", LLAMA, "--target", "lantern", "--out", "nowhere")


def test_it_is_enumerated(invented: Engine) -> None:
    """Its layouts stand beside the others', by rules of its own, and the schema of studies names it."""
    document = json.loads(answered("space", QWEN, "--json"))
    own = [plan for plan in document["layouts"] if plan["engine"] == invented.name]
    assert len(own) >= 10
    assert document["counts"]["rejected"]["no_attention_dp"] > 0
    schema = json.loads(answered("schema"))
    assert schema["properties"]["engine"]["enum"] == ["vllm", "sglang", "trtllm", "lantern", "any"]


def test_it_competes(invented: Engine, tmp_path: Path) -> None:
    """Scored and ranked with all others, stored and resumed; what stands in for its calibration is said."""
    stored = f"sqlite:///{tmp_path / 'trials.db'}"
    words = ("tune", QWEN, *SET, "--json", "--top", "0", "--storage", stored)
    document = json.loads(answered(*words))
    own = [plan for plan in document["plans"] if plan["engine"] == invented.name]
    assert own
    assert len(own) < len(document["plans"])
    assert any("lantern was not measured: times of sglang" in text for text in document["assumptions"])
    assert json.loads(answered(*words))["plans"] == document["plans"]


def test_it_stands_on_the_page(invented: Engine) -> None:
    """Where engines compete, tables of the report call it by its title."""
    assert invented.title in tune_page(tune(load_study(QWEN, ONE_NODE)))


def test_its_times_are_those_of_its_stand_in_but_less_sure(invented: Engine) -> None:
    """A borrowed calibration gives the same residual with a wider variance, never a narrower one."""
    traits, study = traits_by_name(), load_study(LLAMA)
    gpu = study.cluster.gpu
    borrowed, owned = (
        residual_columns([(study.arch, gpu, traits[name], None)])
        for name in (invented.name, invented.traits.calibration)
    )
    assert borrowed.tpot.mean.tolist() == owned.tpot.mean.tolist()
    assert (borrowed.tpot.noise > owned.tpot.noise).all()
    assert (borrowed.ttft.noise > owned.ttft.noise).all()


def test_a_study_of_it_alone(invented: Engine) -> None:
    """The study's own engine: every plan ranked is its, and its start-up time is the one that a switch takes."""
    study = load_study(LLAMA, ["engine=lantern"])
    ranked = tune(study).ranked
    assert ranked
    assert {plan.engine for plan in ranked} == {invented.name}
    assert study.switch.startup_s[invented.name] == Lantern.startup_s


def test_it_is_compared_evaluated_and_drawn(invented: Engine) -> None:
    """Its plan strings are read by every command that takes one."""
    plan, asked = f"{invented.name}:TP8/EP8", SET
    compared = json.loads(answered("compare", QWEN, *asked, "--candidate", plan, "--json"))
    assert compared["candidate"]["engine"] == invented.name
    evaluated = json.loads(answered("evaluate", QWEN, *asked, "--plan", plan, "--json"))
    assert {row["engine"] for row in evaluated["compatibility"]["engines"]} == set(ENGINES)
    assert json.loads(answered("dag", QWEN, "--plan", plan, *asked))["graph"]["engine"] == invented.name


@pytest.mark.parametrize("target", ["lantern", "k8s"])
def test_it_is_exported_and_imported(invented: Engine, target: str, tmp_path: Path) -> None:
    """The best of its plans as launch files, which are read back as that plan."""
    out = str(tmp_path / "out")
    written = json.loads(
        answered("export", LLAMA, "--set", "engine=lantern", "--target", target, "--out", out, "--json")
    )
    assert written["engine"] == invented.name
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8").startswith("# llama-70b-16xh100: Lantern 1.0.0")
    read = json.loads(answered("import", out, "--json"))
    assert (read["engine"], read["plan"], read["unknown"]) == (invented.name, written["plan"], [])


def test_its_runs_are_read(invented: Engine, tmp_path: Path) -> None:
    """A file of measured runs may name it, and predicts them."""
    path = tmp_path / "runs.csv"
    header = "gpu,engine,model,isl,osl,concurrency,attn_tp,tpot_ms"
    path.write_text(f"{header}\nh100_sxm,{invented.name},llama-3.1-70b,1000,100,8,8,17\n", encoding="utf-8")
    (run,) = read_runs(path, traits_by_name())
    assert run.entry.engine is invented.traits
