"""What the benchmark of an export says of itself is what `verify` reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from autotune.launch.export import make_export
from autotune.launch.pools.files import pool_files
from autotune.launch.pools.make import make_pool_launch
from autotune.launch.service import LaunchOptions
from autotune.launch.targets.bench_job import FILE
from autotune.launch.targets.registry import find_target, target_files
from autotune.study import Study
from autotune.tuning import PlanResult, score_plan
from autotune.validation.bench import BenchResult, read_results
from costmodel.errors import InputError
from tests.launch.helpers import run_script, scored_pools

POOLS = "P8:R2/TP4+D8:TP8"
ENGINES = ("vllm", "sglang", "trtllm")


def _facts(words: list[str]) -> dict[str, str]:
    """What a client is told to write into its result: fields of vLLM's, a tag of SGLang's."""
    if "--tag" in words:
        return {"tag": words[words.index("--tag") + 1]}
    said = words[words.index("--metadata") + 1 :]
    own = said[: next((i for i, word in enumerate(said) if word.startswith("--")), len(said))]
    return {name: value for name, _, value in (word.partition("=") for word in own)}


def _read(tmp_path: Path, study: Study, plan: PlanResult, facts: dict[str, str]) -> BenchResult:
    """A result of a run with the load and the lengths that the plan was scored at."""
    count = 1000
    record = {
        "completed": count,
        "total_input_tokens": count * round(study.workload.isl.mean),
        "total_output_tokens": count * round(study.workload.osl.mean),
        "mean_ttft_ms": 1e3 * plan.metrics["ttft_s"],
        "mean_tpot_ms": 1e3 * plan.metrics["tpot_s"],
        "max_concurrency": plan.knobs.concurrency,
        "duration": count / plan.metrics["requests_per_s"],
        **facts,
    }
    path = tmp_path / "result.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    (found,) = read_results(path, study, None)
    return found


@pytest.mark.parametrize("target", ["scripts", "dynamo"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_benchmark_of_pools_is_read_as_what_it_drove(tmp_path: Path, engine: str, target: str) -> None:
    """Of 2 prefill replicas and 1 that decodes all are driven, and what was measured is the plan's as it stands."""
    study, plan = scored_pools(engine, POOLS)
    assert plan.pools is not None
    found = find_target(engine if target == "scripts" else target)
    version = found.versions.get(engine)
    both = make_pool_launch(study, plan, asked=LaunchOptions(), assumptions=(), usual_version=version)
    files = pool_files(both, plan.pools, found)
    if target == "scripts":
        words = run_script(files["bench.sh"].text, tmp_path / "run")
    else:
        words = yaml.safe_load(files[FILE].text)["spec"]["template"]["spec"]["containers"][0]["args"]
    read = _read(tmp_path, study, plan, _facts(words))
    assert (read.plan, read.replicas, read.share) == (plan.plan, 3, 1.0)
    assert read.run.concurrency == plan.knobs.concurrency
    assert read.output_tokens_per_s == pytest.approx(plan.metrics["output_tokens_per_s"], rel=1e-2)


@pytest.mark.parametrize("target", ["scripts", "k8s", "dynamo"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_benchmark_of_replicas_is_read_as_what_it_drove(tmp_path: Path, engine: str, target: str) -> None:
    """The same of two replicas that do everything, of which a script drives one where nothing spreads requests."""
    study, _ = scored_pools(engine, POOLS)
    plan = score_plan(study, "R2/TP8", engine=engine).result
    assert plan is not None
    found = find_target(engine if target == "scripts" else target)
    launch = make_export(study, plan, usual_version=found.versions.get(engine))
    files = target_files(found, launch, current=None)
    if target == "scripts":
        words = run_script(files["bench.sh"].text, tmp_path / "run")
    else:
        words = yaml.safe_load(files[FILE].text)["spec"]["template"]["spec"]["containers"][0]["args"]
    read = _read(tmp_path, study, plan, _facts(words))
    driven = 1 if target == "scripts" and launch.router is None else 2
    assert (read.plan, read.replicas, read.share) == (plan.plan, driven, 2 / driven)


@pytest.mark.parametrize("driven", ["1", "2", "4", "x"])
def test_pools_are_driven_whole(tmp_path: Path, driven: str) -> None:
    """A share of the pools' replicas is no share of their load."""
    study, plan = scored_pools("vllm", POOLS)
    facts = {"autotune_plan": plan.plan, "autotune_replicas": driven}
    with pytest.raises(InputError, match=f"must drive all 3 replicas, says '{driven}'"):
        _read(tmp_path, study, plan, facts)
