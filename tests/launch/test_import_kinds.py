"""`autotune import` of what people start servers with: scripts, manifests, values of charts, resources of operators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.engines import ENGINES
from autotune.launch.reading.import_plan import import_plan
from autotune.launch.reading.shell import read_script, without_comments
from autotune.launch.reading.variables import arithmetic, expand
from costmodel.errors import InputError
from tests.studies import FOLDER

SOURCES = Path(__file__).parent / "sources"
PLANS = {
    "slurm_with_arithmetic.sh": (16, "sglang:R1/PP1/ATP16/ADP1/MTP1/EP16"),
    "servers_in_a_loop.sh": (8, "vllm:R4/PP1/ATP2/ADP1/MTP1/EP1"),
    "file_written_in_place.sh": (8, "trtllm:R1/PP1/ATP1/ADP8/MTP1/EP8"),
    "a_command_per_node.sh": (16, "vllm:R1/PP1/ATP1/ADP16/MTP1/EP16"),
    "dynamo_prefill_and_decode.yaml": (16, "vllm:P8:R2/PP1/ATP4/ADP1/MTP1/EP4+D8:R1/PP1/ATP8/ADP1/MTP1/EP8"),
    "leader_worker_set_of_ranks.yaml": (16, "vllm:R1/PP1/ATP1/ADP16/MTP1/EP16"),
    "stateful_set_of_ranks.yaml": (16, "vllm:R1/PP1/ATP1/ADP16/MTP1/EP16"),
    "llm_d_values.yaml": (8, "vllm:P4:R4/PP1/ATP1/ADP1/MTP1/EP1+D4:R1/PP1/ATP4/ADP1/MTP1/EP1"),
    "kserve_llm_inference_service.yaml": (32, "vllm:R2/PP1/ATP1/ADP16/MTP1/EP16"),
    "kserve_inference_service.yaml": (8, "vllm:R2/PP1/ATP4/ADP1/MTP1/EP1"),
    "ray_prefill_and_decode.yaml": (16, "vllm:P8:R2/PP1/ATP4/ADP1/MTP1/EP1+D8:R1/PP1/ATP8/ADP1/MTP1/EP1"),
    "compose_with_entrypoint.yaml": (8, "sglang:R1/PP1/ATP8/ADP1/MTP1/EP8"),
    "production_stack_values.yaml": (4, "vllm:P1:R1/PP1/ATP1/ADP1/MTP1/EP1+D3:R3/PP1/ATP1/ADP1/MTP1/EP1"),
    "trtllm_disaggregated.yaml": (24, "trtllm:P16:R2/PP1/ATP8/ADP1/MTP8/EP1+D8:R1/PP1/ATP8/ADP1/MTP1/EP8"),
    "trtllm_disaggregated.sh": (24, "trtllm:P16:R2/PP1/ATP8/ADP1/MTP8/EP1+D8:R1/PP1/ATP8/ADP1/MTP1/EP8"),
    "compose_merged_services.yml": (4, "sglang:R2/PP1/ATP2/ADP1/MTP1/EP1"),
    "systemd_unit.service": (8, "vllm:R1/PP1/ATP8/ADP1/MTP1/EP1"),
    "slurm_nested_shell.sbatch": (32, "sglang:R1/PP1/ATP8/ADP4/MTP32/EP1"),
    "kserve_container.yaml": (12, "vllm:R3/PP1/ATP4/ADP1/MTP1/EP1"),
    "ray_data_parallel.yaml": (16, "vllm:R1/PP1/ATP1/ADP16/MTP1/EP16"),
    "containers_over_ssh.sh": (16, "sglang:R1/PP1/ATP16/ADP1/MTP16/EP1"),
    "skypilot_nodes.yaml": (16, "vllm:R1/PP2/ATP8/ADP1/MTP1/EP1"),
    "podman_unit.container": (2, "vllm:R1/PP1/ATP2/ADP1/MTP1/EP1"),
    "compose_scale.yaml": (8, "vllm:R4/PP1/ATP2/ADP1/MTP1/EP1"),
    "docker_inspect.json": (4, "vllm:R1/PP1/ATP4/ADP1/MTP1/EP1"),
    "slurm_task_per_server.sh": (32, "vllm:R4/PP1/ATP8/ADP1/MTP1/EP1"),
    "deployment_with_autoscaler.yaml": (8, "vllm:R2/PP1/ATP4/ADP1/MTP1/EP1"),
    "options_file_alone.yaml": (8, "vllm:R2/PP1/ATP4/ADP1/MTP1/EP1"),
    "two_servers_in_a_pod.yaml": (8, "vllm:R2/PP1/ATP4/ADP1/MTP1/EP1"),
    "branches_of_one_server.sh": (16, "sglang:R1/PP1/ATP16/ADP1/MTP16/EP1"),
    "stateful_set_of_ray_nodes.yaml": (16, "vllm:R1/PP2/ATP8/ADP1/MTP8/EP1"),
    "function_called_twice.sh": (8, "vllm:R2/PP1/ATP4/ADP1/MTP1/EP1"),
    "slurm_quoted_lines.sh": (16, "vllm:R1/PP1/ATP1/ADP16/MTP1/EP16"),
    "router_with_its_workers.sh": (8, "sglang:R2/PP1/ATP4/ADP1/MTP1/EP1"),
    "kubeai_model.yaml": (4, "vllm:R1/PP1/ATP4/ADP1/MTP1/EP1"),
    "argo_application.yaml": (8, "vllm:R2/PP1/ATP4/ADP1/MTP1/EP1"),
    "dynamo_prefill_flag_alone.sh": (4, "vllm:P2:R1/PP1/ATP2/ADP1/MTP1/EP1+D2:R1/PP1/ATP2/ADP1/MTP1/EP1"),
    "kserve_serving_runtime.yaml": (8, "vllm:R2/PP1/ATP4/ADP1/MTP1/EP1"),
    "environment_of_a_config_map.yaml": (8, "vllm:R2/PP1/ATP4/ADP1/MTP1/EP1"),
    "windows_lines.bat": (4, "vllm:R1/PP1/ATP4/ADP1/MTP1/EP1"),
    "job_set_of_nodes.yaml": (16, "sglang:R1/PP1/ATP16/ADP1/MTP16/EP1"),
}
"""File -> GPUs and plan of what it starts."""
SGLANG = "python3 -m sglang.launch_server --model-path x"


@pytest.mark.parametrize("name", PLANS)
def test_a_file_is_the_plan_that_it_starts(name: str) -> None:
    """All GPUs of it, prefill and decode apart, and nothing that is not understood."""
    read = import_plan(str(SOURCES / name))
    assert (read.gpus, read.plan) == PLANS[name]
    assert read.unknown == ()
    assert (read.pools is not None) == ("+" in read.plan)
    assert not any("are asked for" in text for text in read.assumptions)


def test_a_router_beside_its_servers_is_no_server(tmp_path: Path) -> None:
    """TensorRT-LLM's; alone it needs the file that says what is behind it, and a file of addresses does not."""
    script, addresses = tmp_path / "start.sh", tmp_path / "urls.yaml"
    addresses.write_text("context_servers: {urls: [a]}\ngeneration_servers: {urls: [b]}\n")
    router = "trtllm-serve disaggregated -c urls.yaml\n"
    script.write_text("trtllm-serve meta-llama/Llama-3.1-70B-Instruct --tp_size 4 &\n" * 2 + router)
    assert import_plan(str(script)).plan == "trtllm:R2/PP1/ATP4/ADP1/MTP1/EP1"
    script.write_text(router)
    with pytest.raises(InputError, match="says where servers are"):
        import_plan(str(script))
    addresses.unlink()
    with pytest.raises(InputError, match="is not here"):
        import_plan(str(script))


def test_a_file_written_in_place_says_the_knobs() -> None:
    """The script's own YAML, as TensorRT-LLM takes it."""
    knobs = import_plan(str(SOURCES / "file_written_in_place.sh")).knobs
    assert (knobs["kv_dtype"], knobs["memory_fraction"], knobs["max_num_seqs"]) == ("fp8", 0.85, 256)


@pytest.mark.parametrize(
    ("command", "gpus", "plan"),
    [
        ("docker run --gpus all -e A=1 --ipc=host vllm/vllm-openai:v0.24.0 --model x/y -tp 4", 4, "ATP4"),
        (f"sudo podman run --rm -it --name s lmsysorg/sglang:latest {SGLANG} --tp 2", 2, "ATP2"),
        ("docker run --entrypoint bash vllm/vllm-openai:v0.24.0 -c 'vllm serve x/y -tp 8'", 8, "ATP8"),
        ("python3 -m dynamo.trtllm --model-path x --tensor-parallel-size 4", 4, "ATP4"),
        ("vllm serve x/y -tp 2 --enable-expert-parallel=false --no-enable-prefix-caching", 2, "EP1"),
        ("vllm serve x/y -tp 2 --enable-expert-parallel true", 2, "EP2"),
        ("vllm serve x/y -tp 2 -O3", 2, "ATP2"),
        ("pdsh -w n[1-3],m 'vllm serve x/y -tp 8'", 32, "R4/PP1/ATP8"),
        ("srun -N 2 --ntasks 16 bash -c 'trtllm-llmapi-launch trtllm-serve x/y --tp_size 16'", 16, "R1/PP1/ATP16"),
    ],
)
def test_commands(command: str, gpus: int, plan: str) -> None:
    """Containers by their engine's documented way, Dynamo's workers, and truth values in every spelling."""
    read = import_plan(command)
    assert read.gpus == gpus
    assert plan in read.plan
    assert read.unknown == ()


def test_what_a_variable_hides_is_asked_for_by_name(tmp_path: Path) -> None:
    """Every one of them at once; given, they count, and a default needs none."""
    path = tmp_path / "start.sh"
    path.write_text("vllm serve x --tensor-parallel-size $TP --data-parallel-size ${DP} --max-num-seqs ${S:-64}\n")
    with pytest.raises(InputError, match=r"(?s)--var TP: is required.*--var DP: is required") as raised:
        import_plan(str(path))
    assert len(raised.value.problems) == 2
    done = CliRunner().invoke(cli, ["import", str(path), "--var", "TP=2", "--var", "DP=4", "--json"])
    assert '"gpus": 8' in done.stdout
    assert done.stdout.index('"gpus"') < done.stdout.index('"engine"')


def test_a_configuration_file_counts(tmp_path: Path) -> None:
    """Beside the script or in a ConfigMap; the command line goes before it; a file that is not there is an error."""
    (tmp_path / "serve.yaml").write_text("model: x/y\ntensor-parallel-size: 8\nenable-expert-parallel: true\n")
    script = tmp_path / "start.sh"
    script.write_text("vllm serve --config serve.yaml --tensor-parallel-size 4\n")
    read = import_plan(str(script))
    assert (read.model, read.layout.attn_tp, read.layout.moe_ep) == ("x/y", 4, 4)
    script.write_text("vllm serve --config other.yaml\n")
    with pytest.raises(InputError, match=r"other\.yaml: is not here"):
        import_plan(str(script))
    manifest = tmp_path / "all.yaml"
    manifest.write_text(
        "kind: ConfigMap\ndata:\n  c.yaml: |\n    tensor-parallel-size: 2\n---\nkind: Pod\nspec:\n  containers:\n"
        "  - {name: v, image: 'vllm/vllm-openai:v0.24.0', args: [x/y, --config, /etc/vllm/c.yaml]}\n"
    )
    assert import_plan(str(manifest)).layout.attn_tp == 2


def test_gpus_that_are_asked_for_and_not_used_are_said(tmp_path: Path) -> None:
    """A pod with eight GPUs whose options use four."""
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(
        "kind: Pod\nspec:\n  containers:\n  - {name: v, image: 'vllm/vllm-openai:v0.24.0', "
        "args: [x/y, -tp, '4'], resources: {limits: {nvidia.com/gpu: 8}}}\n"
    )
    assert "8 GPUs are asked for, the options use 4" in import_plan(str(manifest)).assumptions


def test_what_runs_a_command_unknown_times_is_said(tmp_path: Path) -> None:
    """One server is read."""
    path = tmp_path / "start.sh"
    path.write_text("seq 0 3 | xargs -P 4 -I{} sh -c 'vllm serve x/y --port 800{}'\n")
    read = import_plan(str(path))
    assert read.gpus == 1
    assert any("xargs" in text for text in read.assumptions)


def test_one_side_alone_is_said() -> None:
    """Prefill servers without their decode servers are a plan of their own."""
    read = import_plan(f"{SGLANG} --tp 8 --disaggregation-mode prefill")
    assert read.pools is None
    assert any("servers for prefill alone" in text for text in read.assumptions)


def test_what_runs_goes_into_compare() -> None:
    """A command as the current plan, with its knobs."""
    command = "vllm serve x --tensor-parallel-size 8 --max-num-batched-tokens 4096 --kv-cache-dtype fp8"
    study = str(FOLDER / "llama-70b-16xh100.toml")
    done = CliRunner().invoke(cli, ["compare", study, "--current", command, "--json"], catch_exceptions=False)
    assert '"max_num_batched_tokens": 4096' in done.stdout
    assert '"kv_dtype": "fp8"' in done.stdout


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("TP * 2", 16), ("(TP+1)/3", 3), ("$TP % 3", 2), ("${TP}-9", -1), ("TP ** 9", None), ("GONE + 1", None),
        ("TP/0", None), ("", None),
    ],
)  # fmt: skip
def test_sums(text: str, value: int | None) -> None:
    """Whole numbers and known variables alone."""
    assert arithmetic(text, {"TP": "8"}) == value


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ('A=(--a $((N * 2))\n  --b 2\n)\nrun "${A[@]}"\n', [("run --a 6   --b 2", 1)]),
        ("f() { run; }\nf\nf\n", [("run", 1), ("run", 1)]),
        ("for i in 1 2; do\nrun &\nkill $!\ndone\nrest\n", [("run &", 1), ("kill $!", 1), ("rest", 1)]),
        ("#SBATCH --array=0-6:2%2\nrun\n", [("run", 4)]),
        ("A=8\nrun --tp $A # comment\n", [("run --tp 8", 1)]),
        ("echo 'a # b' \"# c\" x#y\n", [("echo 'a # b' \"# c\" x#y", 1)]),
        ("X='--a 1'\nX+=' --b 2'\nrun $X\n", [("run --a 1 --b 2", 1)]),
        ("for i in {0..3}; do\nrun $i\ndone\nrest\n", [("run $i", 4), ("rest", 1)]),
        ("for ((i=0;i<N;i++)); do\nrun\ndone\n", [("run", 3)]),
        ("A=$((N*2)) B=x\nrun $A\n", [("run 6", 1)]),
        ("X='--a 1\n --b 2'\nrun $X\n", [("run --a 1\n --b 2", 1)]),
        ("f() {\n run\n}\nfor i in 1 2; do\n f\ndone\nf\n", [("run", 2), ("run", 1)]),
    ],
)
def test_scripts(script: str, lines: list[tuple[str, int]]) -> None:
    """Comments, assignments, arithmetic and loops, without running anything."""
    found = read_script(script, {"N": "3"})
    assert [(line.text.strip(), line.times) for line in found.lines] == lines


def test_a_given_variable_holds_against_the_script() -> None:
    """`--var` goes before what a script sets."""
    assert [line.text for line in read_script("TP=4\nrun $TP\n", {"TP": "8"}).lines] == ["run 8"]


def test_text_without_variables_is_left_alone() -> None:
    """Commands that are run to find a value, and names that nothing sets, stay as they stand."""
    for text in ("$(hostname -i)", "$GONE", "${GONE}", "cost: 5$"):
        assert expand(text, {}) == text
    assert without_comments("a\\#b") == "a\\#b"


@pytest.mark.parametrize(
    "values", [{"servingEngineSpec": 5}, {"modelArtifacts": [], "decode": {}}, {"kind": "RayService"}]
)
def test_resources_without_servers_are_refused(values: Any, tmp_path: Path) -> None:
    """Values of a chart that start nothing are an error that says what is read."""
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match="it starts none"):
        import_plan(str(path))


@pytest.mark.parametrize(
    ("engine", "connector", "degrees", "broken"),
    [
        ("vllm", "NixlConnector", (8, 4), ["nixl_kv_head_copies"]),
        ("vllm", "MooncakeConnector", (8, 4), []),
        ("vllm", "MooncakeConnector", (6, 4), ["mooncake_multiple_tp"]),
        ("vllm", "P2pNcclConnector", (6, 4), []),
        ("sglang", "nixl", (2, 4), ["staged_attention_tp"]),
        ("sglang", "mooncake", (2, 4), []),
        ("sglang", None, (2, 4), []),
    ],
)
def test_pools_are_held_against_their_own_connector(
    engine: str, connector: str | None, degrees: tuple[int, int], broken: list[str], tmp_path: Path
) -> None:
    """The same pair of pools is barred by one connector and not by another; of an unknown one that is said."""
    model = "Qwen/Qwen3-235B-A22B-FP8"
    lines = []
    for role, kv_role, tp in zip(("prefill", "decode"), ("producer", "consumer"), degrees, strict=True):
        if engine == "vllm":
            given = json.dumps({"kv_connector": connector, "kv_role": f"kv_{kv_role}"})
            lines.append(f"vllm serve {model} --tensor-parallel-size {tp} --kv-transfer-config '{given}' &")
        else:
            backend = "" if connector is None else f"--disaggregation-transfer-backend {connector}"
            stages = 2 if role == "prefill" else 1
            lines.append(
                f"python3 -m sglang.launch_server --model-path {model} --tp-size {tp} --pp-size {stages} "
                f"--disaggregation-mode {role} {backend} &"
            )
    script = tmp_path / "pools.sh"
    script.write_text("\n".join([*lines, "wait"]) + "\n")
    read = import_plan(str(script))
    assert read.pools is not None
    pairs = {rule.name for rules in ENGINES[engine].connectors.values() for rule in rules}
    assert [name for text in read.rules_broken if (name := text.partition(":")[0]) in pairs] == broken
    assert any("is not known: they are held" in text for text in read.assumptions) is (connector == "P2pNcclConnector")
