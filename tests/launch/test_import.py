"""`autotune import`: what runs today, as people write it, as a plan."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import costmodel.arch
from autotune.cli.current import with_current
from autotune.cli.main import cli
from autotune.launch.reading.import_plan import import_plan
from autotune.study import load_study, study_from_document
from costmodel.errors import InputError
from tests.studies import FOLDER

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: llama}
spec:
  replicas: 3
  template:
    spec:
      containers:
      - name: vllm
        image: vllm/vllm-openai:v0.24.0
        args: ["--model", "meta-llama/Llama-3.1-70B-Instruct", "--tensor-parallel-size", "4", "--max-model-len=8k",
               "--made-up", "7"]
"""
GROUPS = """
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: sglang}
spec:
  replicas: 2
  leaderWorkerTemplate:
    size: 2
    leaderTemplate:
      spec:
        containers:
        - &server
          name: server
          image: lmsysorg/sglang:latest
          command: [python3, -m, sglang.launch_server, --model-path, deepseek-ai/DeepSeek-R1, --tp, "16",
                    --dist-init-addr, "$(LWS_LEADER_ADDRESS):20000", --nnodes, "$(LWS_GROUP_SIZE)",
                    --node-rank, "$(LWS_WORKER_INDEX)", --attn-dp-size, "8"]
    workerTemplate:
      spec:
        containers: [*server]
"""
COMPOSE = """
services:
  vllm:
    image: vllm/vllm-openai:latest
    command: --model ${MODEL:-Qwen/Qwen3-235B-A22B} -tp 8 --enable-expert-parallel --max-num-seqs 256
  prometheus: {image: prom/prometheus, command: ["--config.file=/x"]}
"""
GRAPH = """
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata: {name: x}
spec:
  services:
    Frontend: {componentType: frontend, replicas: 1}
    decode:
      componentType: worker
      replicas: 2
      multinode: {nodeCount: 2}
      extraPodSpec:
        mainContainer:
          image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1
          command: [python3, -m, dynamo.vllm]
          args: [--model, deepseek-ai/DeepSeek-R1, --tensor-parallel-size, "2", --data-parallel-size, "8",
                 --enable-expert-parallel]
"""


def imported(tmp_path: Path, text: str, *more: str) -> Any:
    """What the command line answers for a file."""
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    done = CliRunner().invoke(cli, ["import", str(path), *more, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def test_a_deployment_by_the_images_own_version(tmp_path: Path) -> None:
    """Three replicas, the image's entrypoint and version; what that does not know is listed, its defaults are said."""
    found = imported(tmp_path, DEPLOYMENT)
    assert (found["engine"], found["engine_version"]) == ("vllm", "0.24.0")
    assert found["plan"] == "vllm:R3/PP1/ATP4/ADP1/MTP1/EP1"
    assert found["layout"]["stage_layers"] == [80]
    assert found["unknown"] == ["--made-up 7"]
    assert found["knobs"]["max_model_len"] == 8000
    assert found["defaults"]["gpu_memory_utilization"] == 0.92
    assert found["defaults"]["enable_expert_parallel"] is False
    assert "engine version 0.24.0: of the image's tag" in found["assumptions"]
    assert imported(tmp_path, DEPLOYMENT, "--engine-version", "0.33.0")["engine_version"] == "0.33.0"


def test_an_image_older_than_every_list_is_said(tmp_path: Path) -> None:
    """Its options are read by the newest list, and the answer says that the image is older than any."""
    found = imported(tmp_path, DEPLOYMENT.replace("v0.24.0", "v0.9.2"))
    assert found["engine_version"] == "0.33.0"
    assert any("the image has vllm 0.9.2, older than any" in text for text in found["assumptions"])


def test_a_leader_and_its_workers_are_one_server(tmp_path: Path) -> None:
    """Two groups of two pods with one command each: two replicas, not four."""
    found = imported(tmp_path, GROUPS)
    assert found["plan"] == "sglang:R2/PP1/ATP2/ADP8/MTP16/EP1"
    assert found["knobs"]["max_num_batched_tokens"] == 1024
    assert found["defaults"]["mem_fraction_static"] is None


def test_compose_with_a_variable_and_other_services(tmp_path: Path) -> None:
    """The server among other services, its arguments as one line, the default of a variable taken."""
    found = imported(tmp_path, COMPOSE)
    assert found["plan"] == "vllm:R1/PP1/ATP8/ADP1/MTP1/EP8"
    assert (found["model"], found["knobs"]["max_num_seqs"]) == ("Qwen/Qwen3-235B-A22B", 256)


def test_a_graph_of_the_older_api(tmp_path: Path) -> None:
    """Dynamo's workers, two replicas of two nodes, whose further options the operator adds."""
    assert imported(tmp_path, GRAPH)["plan"] == "vllm:R2/PP1/ATP2/ADP8/MTP1/EP16"


def test_what_is_imported_is_the_current_of_compare(tmp_path: Path) -> None:
    """The plan string of an import goes into `compare --current` as it is."""
    found = imported(tmp_path, GRAPH.replace("replicas: 2", "replicas: 8"))
    study = str(FOLDER / "deepseek-v3-128xh200.toml")
    done = CliRunner().invoke(
        cli,
        ["compare", study, "--set", "workload.concurrency=512", "--current", found["plan"], "--json"],
        catch_exceptions=False,
    )
    assert json.loads(done.stdout)["current"]["plan"] == found["plan"]


def test_nothing_to_import_is_named(tmp_path: Path) -> None:
    """A file without a server is an error that says what it should hold."""
    path = tmp_path / "file.yaml"
    path.write_text("services: {web: {image: nginx, command: [nginx]}}", encoding="utf-8")
    with pytest.raises(InputError, match="must start vllm serve"):
        import_plan(str(path))


EXPORTS = [
    ("deepseek-v3-128xh200", "vllm", "0.24.0", ()),
    ("deepseek-v3-128xh200", "k8s", "0.24.0", ()),
    ("deepseek-v3-128xh200", "dynamo", "0.24.0", ()),
    ("qwen3-235b-64xh100", "sglang", "0.5.9", ("--set", "engine=any")),
    ("qwen3-235b-64xh100", "trtllm", "1.1.0", ("--set", "engine=any")),
    ("reference-128", "k8s", "0.24.0", ("--model", "/models/own")),
    ("reference-128", "dynamo", "0.24.0", ("--model", "org/own")),
    ("reference-128", "vllm", "0.33.0", ("--plan", "baseline", "--model", "org/own")),
    ("llama-70b-16xh100", "compose", "0.24.0", ("--set", "cluster.gpus=8", "--set", "baseline=", "--plan", "TP4")),
]


@pytest.mark.parametrize(("study", "target", "version", "more"), EXPORTS)
def test_an_exported_folder_of_an_older_version_reads_back(
    study: str, target: str, version: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    """Every target, by the command line, with an older engine version: the folder is imported as the same plan."""
    out = str(tmp_path / "out")
    command = ["export", str(FOLDER / f"{study}.toml"), "--target", target, "--engine-version", version, "--out", out]
    done = CliRunner().invoke(cli, [*command, *more, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    written = json.loads(done.stdout)
    read = CliRunner().invoke(cli, ["import", out, "--json"], catch_exceptions=False)
    found = json.loads(read.stdout)
    assert (found["plan"], found["engine_version"]) == (written["plan"], version)
    assert found["layout"] == written["layout"]
    assert found["unknown"] == []
    assert {"README.md", "plan.json", "study.json"} < set(written["files"])
    assert {"bench.sh", "bench-job.yaml", "compose.yaml"} & set(written["files"])


def test_the_way_from_what_runs(tmp_path: Path) -> None:
    """With --from an exported folder, the README lists what differs and the steps."""
    study = str(FOLDER / "deepseek-v3-128xh200.toml")
    first, second = str(tmp_path / "first"), tmp_path / "second"
    base = ["export", study, "--target", "k8s", "--json", "--out"]
    assert CliRunner().invoke(cli, [*base, first, "--plan", "baseline"], catch_exceptions=False).exit_code == 0
    assert CliRunner().invoke(cli, [*base, str(second), "--from", first], catch_exceptions=False).exit_code == 0
    text = (second / "README.md").read_text(encoding="utf-8")
    assert "| replicas | 4 | 16 |" in text
    assert "| pp | 2 | 1 |" in text
    assert "Go in steps of 1 old replica for 4 new ones, until all 16 run." in text


POOLED = "vllm:P64:TP8/DP8/EP64+D64:DP64/EP64"


def test_the_way_from_a_command(tmp_path: Path) -> None:
    """--from takes the command line that runs today: its lengths and counts stand beside the new ones."""
    command = "vllm serve deepseek-ai/DeepSeek-V3 -tp 8 -pp 2 --max-num-seqs 77 --max-model-len 9000"
    base = ["export", str(FOLDER / "deepseek-v3-128xh200.toml"), "--target", "vllm", "--json"]
    done = CliRunner().invoke(cli, [*base, "--out", str(tmp_path / "out"), "--from", command], catch_exceptions=False)
    assert done.exit_code == 0
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\| max_num_seqs \| 77 \| \d+ \|", text)
    assert "| max_model_len | 9000 | 5376 |" in text
    assert "| gpu_memory_utilization | 0.92 | 0.9 |" in text
    assert "what runs is one server of 16 GPUs; 8 of them taken" in text


@pytest.mark.parametrize(
    ("gpu", "more", "tokens", "seqs"),
    [
        ("h100", "", 8192, 1024),
        ("a100", "", 2048, 256),
        ("h100", "--all2all-backend deepep_low_latency", 256, 256),
        ("h100", "--all2all-backend deepep_high_throughput", 8192, 1024),
    ],
)
def test_defaults_go_by_gpu_and_backend(gpu: str, more: str, tokens: int, seqs: int, tmp_path: Path) -> None:
    """What vLLM takes where nothing is said: less on A100s, and 256 tokens with low-latency kernels between ranks."""
    study = tmp_path / "study.toml"
    study.write_text(
        'model = "qwen3-235b"\nengine = "vllm"\ncluster = { gpus = 16, gpu = "' + gpu + '" }\n'
        "workload = { isl = 1000, osl = 200, concurrency = 16 }\n"
    )
    command = f"vllm serve Qwen/Qwen3-235B-A22B -tp 2 -dp 8 --enable-expert-parallel {more}"
    knobs = import_plan(command, study=load_study(study)).knobs
    assert (knobs["max_num_batched_tokens"], knobs["max_num_seqs"]) == (tokens, seqs)


@pytest.mark.parametrize("plan", ["R1/TP8", "P4:TP4+D4:TP4"])
def test_a_model_of_ones_own_has_to_be_named(plan: str, tmp_path: Path) -> None:
    """A study of a config.json asks what to load, once, and writes nothing; with a name it writes that."""
    catalog = Path(costmodel.arch.__file__).parent / "catalog_data" / "meta-llama--Meta-Llama-3.1-70B.json"
    (tmp_path / "my-llama.json").write_text(catalog.read_text())
    study = tmp_path / "study.toml"
    study.write_text(
        'model = "my-llama.json"\nengine = "vllm"\ncluster = { gpus = 8, gpu = "h100" }\n'
        "workload = { isl = 1000, osl = 200, request_rate_per_s = 0.5 }\n"
    )
    command = ["export", str(study), "--target", "vllm", "--plan", plan, "--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match=r"^--model: is required") as raised:
        CliRunner().invoke(cli, command, catch_exceptions=False)
    assert len(raised.value.problems) == 1
    assert not (tmp_path / "out").exists()
    found = CliRunner().invoke(cli, [*command, "--model", "org/my-llama"], catch_exceptions=False)
    assert found.exit_code == 0
    assert any("serve org/my-llama" in p.read_text() for p in (tmp_path / "out").glob("*.sh"))


def test_what_is_served_is_what_was_asked_for(tmp_path: Path) -> None:
    """A later release with the config of another is served by its own name; of a variant without one, it is asked."""
    study = str(FOLDER / "llama-70b-16xh100.toml")
    command = ["export", study, "--target", "vllm", "--plan", "R2 TP8", "--out", str(tmp_path / "out"), "--set"]
    assert CliRunner().invoke(cli, [*command, "model=llama-3.3-70b"], catch_exceptions=False).exit_code == 0
    served = [script.read_text() for script in (tmp_path / "out").glob("replica*.sh")]
    assert served
    assert all("serve meta-llama/Llama-3.3-70B-Instruct" in script for script in served)
    with pytest.raises(InputError, match=r"^--model: is required.*config of meta-llama/Meta-Llama-3.1-70B"):
        CliRunner().invoke(cli, [*command, "model=llama-3.1-70b-fp8"], catch_exceptions=False)


@pytest.mark.parametrize("plan", ["baseline", "vllm:R8/PP1/ATP8/ADP1/MTP1/EP8"])
def test_a_plan_of_another_engine_is_not_the_targets(plan: str, tmp_path: Path) -> None:
    """A plan that runs on vLLM is no plan for SGLang's launch files: an error, and no folder."""
    study = str(FOLDER / "qwen3-235b-64xh100.toml")
    command = ["export", study, "--set", "engine=any", "--target", "sglang", "--plan", plan, "--out"]
    with pytest.raises(InputError, match=r"sglang.*vllm|vllm.*sglang"):
        CliRunner().invoke(cli, [*command, str(tmp_path / "out")], catch_exceptions=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--target", "compose", "--plan", POOLED), "pools: compose is not written for two pools"),
        (("--target", "compose"), "one_node"),
        (("--target", "vllm", "--plan", "R1/PP4/TP8/DP4/EP32", "--hybrid-lb"), "dp_rank_nodes"),
        (("--target", "dynamo", "--hybrid-lb"), "dynamo_hybrid_lb"),
        (("--target", "dynamo", "--model", "/models/$(id)"), "dynamo_shell_names"),
        (("--target", "sglang"), "is sglang, the study is about vllm"),
        (("--target", "sglang", "--set", "engine=sglang", "--hybrid-lb"), "hybrid_lb: with SGLang only the head"),
        (
            ("--target", "helm"),
            "--target: must be one of vllm, sglang, trtllm, compose, k8s, dynamo, llm-d, disaggregatedset, got 'helm'",
        ),
        (("--target", "slurm"), "got 'slurm'; slurm.sh is one of the files of vllm, sglang, trtllm"),
        (("--target", "vllm", "--engine-version", "0.1"), "must be vllm 0.24.0 or newer"),
        (("--target", "k8s", "--image", "a b"), "must be a container image"),
    ],
)
def test_what_cannot_be_written_names_its_rule(more: tuple[str, ...], why: str, tmp_path: Path) -> None:
    """An error that names the rule, and no folder."""
    out = tmp_path / "out"
    command = ["export", str(FOLDER / "deepseek-v3-128xh200.toml"), "--out", str(out), *more]
    with pytest.raises(InputError, match=why):
        CliRunner().invoke(cli, command, catch_exceptions=False)
    assert not out.exists()


@pytest.mark.parametrize("command", ["import", "compare"])
def test_a_command_of_another_model_is_refused(command: str) -> None:
    """What runs another model than the study's is an error that names both."""
    study, served = str(FOLDER / "llama-70b-16xh100.toml"), "vllm serve deepseek-ai/DeepSeek-V3 -tp 8"
    words = ["import", served, "--study", study] if command == "import" else ["compare", study, "--current", served]
    with pytest.raises(InputError, match=r"model: .*Llama-3\.1-70B.*deepseek-ai/DeepSeek-V3"):
        CliRunner().invoke(cli, words, catch_exceptions=False)


@pytest.mark.parametrize(
    ("model", "served", "dtype"),
    [
        ("qwen3-32b", "Qwen/Qwen3-32B", None),
        ("qwen3-32b", "Qwen/Qwen3-32B-AWQ", "int4"),
        ("qwen3-32b", "Qwen/Qwen3-32B-FP8", "fp8"),
        ("deepseek-r1", "nvidia/DeepSeek-R1-FP4", "nvfp4"),
        ("deepseek-r1", "deepseek-ai/DeepSeek-V3", None),
        ("qwen3-32b", "somebody/something", None),
        ("qwen3-32b", "/models/DeepSeek-V3", None),
    ],
)
def test_another_precision_of_the_model_is_taken_over(model: str, served: str, dtype: str | None) -> None:
    """A checkpoint with other weights gives the current plan its dtype; what is not the study's own name is said."""
    work = {"isl": 1009, "osl": 211}
    document = {"engine": "vllm", "model": model, "cluster": {"gpus": 8, "gpu": "h200"}, "workload": work}
    study = study_from_document(document, Path("study.toml"))
    runs = with_current(study, f"vllm serve {served} -tp 8", {})
    found, plan = runs.study, runs.plan
    assert plan is None
    assert found.baseline is not None
    assert found.baseline.weight_dtype == dtype
    assert any(repr(served) in text for text in found.assumptions) is (served != study.arch.name)
