"""Benchmark scripts: options that the client has, the study's workload, and what the result says of itself."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import pytest

from autotune.engines import ENGINES
from autotune.engines.benchmark import middle, shared_prefix
from autotune.engines.options import option_list, versions
from autotune.launch.limits import plan_rows
from autotune.launch.service import bench_load
from autotune.launch.targets.scripts import bench_script, script_command
from autotune.study import load_study
from autotune.traffic.load import load_study as load_study_of_log
from autotune.tuning import tune
from costmodel.arch import load_model
from tests.conftest import DATA
from tests.launch.helpers import LOAD, launched, plans, run_script, service
from tests.studies import FOLDER

ARCH = load_model("deepseek-v3")


def first(engine: str, gpus: int = 16, replicas: int = 2):
    """A plan of so many replicas."""
    return next(c for c in plans("deepseek-v3", engine, gpus) if c.layout.replicas == replicas)


def value(words, flag: str) -> str:
    """What follows an option."""
    return words[words.index(flag) + 1]


@pytest.mark.parametrize("name", sorted({engine.bench_client for engine in ENGINES.values()}))
def test_clients_have_a_current_and_an_older_list(name):
    """One list per client and version, with its source; the facts that the script relies on stand in each."""
    assert len(versions(name)) >= 2
    for version in versions(name):
        options = option_list(name, version)
        assert options.source.startswith("PyPI, ")
        assert ("metadata" if name == "vllm_bench" else "tag") in options.options
        assert "max_concurrency" in options.options


def test_an_older_client_is_asked_for_less():
    """SGLang 0.5.9 has no --ready-check-timeout-sec: it is not written for it, and is for 0.5.23."""
    for version, has in (("0.5.9", False), ("0.5.23", True)):
        argv = script_command(launched(service(first("sglang"), ARCH, version=version))).argv
        assert ("--ready-check-timeout-sec" in argv) is has


def test_lengths_are_the_studys(tmp_path):
    """Uniform lengths of the study in each client's terms: vLLM's middle and half width, SGLang's top and ratio."""
    load = replace(LOAD, isl=(500, 1500), osl=(100, 300))
    vllm = run_script(bench_script(launched(service(first("vllm"), ARCH, load=load))), tmp_path / "v")
    assert (value(vllm, "--random-input-len"), value(vllm, "--random-output-len")) == ("1000", "200")
    assert value(vllm, "--random-range-ratio") == "0.5"
    uneven = replace(load, osl=(200, 200))
    both = run_script(bench_script(launched(service(first("vllm"), ARCH, load=uneven))), tmp_path / "w")
    assert json.loads(value(both, "--random-range-ratio")) == {"input": 0.5, "output": 0.0}
    sglang = run_script(bench_script(launched(service(first("sglang"), ARCH, load=load))), tmp_path / "s")
    assert (value(sglang, "--random-input-len"), value(sglang, "--random-range-ratio")) == ("1500", "0.333333")
    assert value(sglang, "--random-output-len") == "300"


def test_the_prefix_cache_is_hit_as_often_as_the_study_says(tmp_path):
    """A quarter of the prompt is shared by all; what is left of the range is drawn."""
    load = replace(LOAD, isl=(1000, 3000), prefix_hit_frac=0.25)
    words = run_script(bench_script(launched(service(first("vllm"), ARCH, load=load))), tmp_path / "v")
    assert (value(words, "--random-prefix-len"), value(words, "--random-input-len")) == ("500", "1500")
    sglang = run_script(bench_script(launched(service(first("sglang"), ARCH, load=load))), tmp_path / "s")
    assert (value(sglang, "--gsp-system-prompt-len"), value(sglang, "--gsp-question-len")) == ("500", "1500")
    assert "autotune_lengths=fixed" in value(sglang, "--tag")


def test_one_replica_or_all_behind_a_balancer(tmp_path):
    """Without an address the first replica gets its share; with one all get all, and the result says which."""
    text = bench_script(launched(service(first("vllm"), ARCH)))
    alone = run_script(text, tmp_path)
    assert value(alone, "--base-url") == "http://first:8000"
    assert (value(alone, "--max-concurrency"), value(alone, "--num-prompts")) == ("32", "320")
    assert "autotune_replicas=1" in alone
    head, _, rest = text.partition("set -euo pipefail")
    every = run_script(f"{head}BASE_URL=http://lb:80\nset -euo pipefail{rest}", tmp_path)
    assert value(every, "--base-url") == "http://lb:80"
    assert value(every, "--max-concurrency") == "64"
    assert "autotune_replicas=2" in every
    more = run_script(f"{head}LOAD=5\nset -euo pipefail{rest}", tmp_path)
    assert (value(more, "--max-concurrency"), value(more, "--num-prompts")) == ("5", "50")


def test_a_rate_drives_where_the_study_gives_one(tmp_path):
    """Arrivals per second instead of requests in flight, for five minutes."""
    load = replace(LOAD, request_rate_per_s=3.0)
    words = run_script(bench_script(launched(service(first("vllm"), ARCH, load=load))), tmp_path)
    assert "--max-concurrency" not in words
    assert (value(words, "--request-rate"), value(words, "--num-prompts")) == ("1.5", "450")


def test_a_balancer_is_asked_for_where_every_node_answers(tmp_path):
    """Hybrid load balancing has no single address: the script refuses to measure a part unasked."""
    base = next(c for c in plans("deepseek-v3", "vllm", 16) if c.layout.attn_dp == 8 and c.layout.moe_ep == 16)
    text = bench_script(launched(service(base, ARCH, hybrid_lb=True)))
    with pytest.raises(subprocess.CalledProcessError, match="returned non-zero"):
        run_script(text, tmp_path)


def test_predicted_is_what_verify_predicts():
    """The README's figures are those of the benchmark: a wait at its beginning, longest where all lengths are equal."""

    def predicted(*overrides):
        study = load_study(FOLDER / "deepseek-v3-128xh200.toml", list(overrides))
        best = tune(study).ranked[0]
        load = bench_load(plan_rows(study, best), best)
        assert load.ttft_steady_s == best.metrics["ttft_s"]
        return load, best

    varied, best = predicted("workload.isl={min=3000,max=5000}")
    fixed, again = predicted("workload.isl=4000")
    assert (best.plan, best.knobs) == (again.plan, again.knobs)
    assert fixed.ttft_s > 1.05 * varied.ttft_s > 1.05**2 * varied.ttft_steady_s
    assert varied.tpot_s == pytest.approx(best.metrics["tpot_s"], rel=0.05)
    arriving, best = predicted("workload.isl={min=3000,max=5000}", "workload.request_rate_per_s=10")
    assert arriving.ttft_s == pytest.approx(best.metrics["ttft_s"], rel=1e-9)
    assert arriving.tpot_s == pytest.approx(best.metrics["tpot_s"], rel=1e-9)


def test_at_a_rate_the_prediction_is_that_of_the_rate():
    """As many output tokens are predicted as arrive, and no wait at a beginning that there is not."""
    study = load_study(FOLDER / "llama-70b-16xh100.toml")
    best = tune(study).ranked[0]
    load = bench_load(plan_rows(study, best), best)
    assert load.output_tokens_per_s == pytest.approx(study.workload.request_rate_per_s * study.workload.osl.mean)
    assert load.ttft_s == load.ttft_steady_s == best.metrics["ttft_s"]


LOG = f"traffic = '{DATA / 'azure_llm_2023_conv.csv'}'"
SESSIONS = """
isl = {min = 100, max = 900}
osl = {min = 100, max = 500}
request_rate_per_s = 4
sessions = {turns = 8, system_tokens = 2000}
"""


@pytest.mark.parametrize("workload", [LOG, SESSIONS])
def test_lengths_have_the_mean_of_a_log_and_of_sessions(tmp_path, workload):
    """Uniform lengths within those of the log, with its mean and with room for all that prompts share."""
    path = tmp_path / "study.toml"
    path.write_text(
        f'model = "llama-3.1-8b"\nengine = "vllm"\n[cluster]\ngpus = 2\ngpu = "h100"\n[workload]\n{workload}\n'
    )
    study = load_study_of_log(path)
    best = tune(study).ranked[0]
    load = bench_load(plan_rows(study, best), best)
    for drawn, scored in ((load.isl, study.workload.isl), (load.osl, study.workload.osl)):
        assert middle(drawn) == round(scored.mean)
        assert scored.min <= drawn[0] < drawn[1] <= scored.max
    assert shared_prefix(load) == (round(load.prefix_hit_frac * middle(load.isl)), ())
