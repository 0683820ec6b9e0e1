"""Pools on two GPU types: every node gets the servers that are meant for its GPUs, and what runs is read back so."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.cli.current import with_current
from autotune.comparison import compare
from autotune.engines import ENGINES
from autotune.files import OutFile
from autotune.launch.files import write_export
from autotune.launch.gpu_types import TO_FILL_IN, gpu_of_label, node_selector, product_label
from autotune.launch.pools.files import pool_files
from autotune.launch.pools.make import PoolLaunch, make_pool_launch
from autotune.launch.reading.import_plan import import_plan
from autotune.launch.service import LaunchOptions
from autotune.launch.targets.registry import find_target
from autotune.report.comparison import comparison_document
from autotune.report.comparison_text import comparison_report
from autotune.study import Study, load_study
from autotune.tuning import PlanResult, score_plan
from autotune.tuning.answer_study import score_named
from costmodel.hardware import gpu_names, load_gpu
from tests.command import autotune
from tests.launch.helpers import FORMS, pools_of
from tests.launch.manifests import check, documents
from tests.studies import FOLDER

STUDY = FOLDER / "llama-70b-16xh100.toml"
SETTINGS = ('cluster.also=[{gpus=8,gpu="h200"}]', "cluster.gpus=8", "baseline=", "workload.request_rate_per_s=1")
PLAN = "P8@h200_sxm:TP8+D8:R2/TP4"
LABELS = {"prefill": "NVIDIA-H200", "decode": "NVIDIA-H100-80GB-HBM3"}


@lru_cache
def _scored(engine: str) -> tuple[Study, PlanResult]:
    study = load_study(STUDY, [f"engine={engine}", *SETTINGS])
    found = score_plan(study, PLAN, engine=engine).result
    assert found is not None
    return study, found


def _launch(engine: str, target: str) -> PoolLaunch:
    version = find_target(target).versions.get(engine)
    return make_pool_launch(*_scored(engine), asked=LaunchOptions(), assumptions=(), usual_version=version)


def _files(engine: str, target: str, launch: PoolLaunch | None = None) -> dict[str, OutFile]:
    return pool_files(launch or _launch(engine, target), pools_of(_scored(engine)[1]), find_target(target))


def _selectors(node: Any, role: str = "") -> list[tuple[str, dict[str, str]]]:
    """Every pod's node selector below a value, with the pool that the mappings around it name."""
    if isinstance(node, list):
        return [found for item in node for found in _selectors(item, role)]
    if not isinstance(node, dict):
        return []
    names = (node.get("name"), node.get("metadata", {}).get("name") if isinstance(node.get("metadata"), dict) else None)
    role = next((name for name in names if name in LABELS), role)
    own = [(role, node["nodeSelector"])] if "nodeSelector" in node else []
    return own + [found for value in node.values() for found in _selectors(value, role)]


@pytest.mark.parametrize(("target", "engine"), FORMS)
def test_every_pool_lands_on_its_own_gpus_and_is_read_back(target: str, engine: str, tmp_path: Path) -> None:
    """Manifests select nodes by NVIDIA's label and keep to their schemas, scripts say each node's GPUs; the folder, and
    where there is one the manifest alone, are imported as the same plan with its types."""
    study, result = _scored(engine)
    files = _files(engine, target)
    readme = files["README.md"].text
    write_export(tmp_path / "out", files)
    sources = [tmp_path / "out"]
    if target in ENGINES:
        assert "# NODE_0: 8 x h200_sxm\nNODE_0=\n# NODE_1: 8 x h100_sxm\nNODE_1=\n" in files["nodes.env"].text
        rows = [line.split("\t") for line in files["nodes.txt"].text.splitlines()]
        assert {(row[0], row[-1]) for row in rows[1:]} == {("NODE_0", "h200_sxm"), ("NODE_1", "h100_sxm")}
        assert json.loads(files["ranks.json"].text)["node_gpus"] == ["h200_sxm", "h100_sxm"]
        assert "NODE_0 8 x h200_sxm, NODE_1 8 x h100_sxm" in readme
    else:
        found = [d for name, f in files.items() if name.endswith(".yaml") for d in documents(f.text)]
        assert sorted(_selectors(found)) == sorted((r, {"nvidia.com/gpu.product": v}) for r, v in LABELS.items())
        assert all(f"`nvidia.com/gpu.product={label}`" in readme for label in LABELS.values())
        for document in found:
            if not (target == "llm-d" and document["kind"] == "Deployment"):  # a patch holds no whole object
                check(document)
        if target != "llm-d":
            sources += (tmp_path / "out").glob("d*.yaml")
    for source in sources:
        read = import_plan(str(source), study=study, version=json.loads(files["plan.json"].text)["engine_version"])
        assert (read.plan, read.unknown) == (result.plan, ())
        assert read.pools is not None
        assert [pool.gpu for pool in read.pools.values()] == ["h200_sxm", "h100_sxm"]
    again = score_named(replace(study, baseline=read.baseline()), None, path="", missing="")
    assert again.result is not None
    assert again.result.launch == result.launch


def test_what_is_not_known_is_asked_for_and_not_guessed() -> None:
    """A GPU whose name in the driver is not known: a label that no node has, an empty variable, and a README that says
    to fill them in."""

    def nameless(launch: PoolLaunch) -> PoolLaunch:
        side = launch.pools["prefill"]
        own = side.service.cluster
        other = replace(own, gpu=replace(own.gpu, name="h200 (changed)", product=None))
        made = replace(side, node_types=(other,), service=replace(side.service, cluster=other))
        joined = replace(launch.joined, node_types=(other, launch.joined.node_types[1]))
        return replace(launch, pools={**launch.pools, "prefill": made}, joined=joined)

    dynamo = nameless(_launch("vllm", "dynamo"))
    unknown = f"{TO_FILL_IN}h200-changed"
    assert node_selector(dynamo.pools["prefill"]) == {"nvidia.com/gpu.product": unknown}
    readme = _files("vllm", "dynamo", dynamo)["README.md"].text
    assert f"`{unknown}` stands for a value that is not known here" in readme
    scripts = _files("vllm", "vllm", nameless(_launch("vllm", "vllm")))
    assert "# h200 (changed): not known here, fill it in\nGPU_NAME_H200_CHANGED=''\n" in scripts["nodes.env"].text
    assert "h200 (changed): not known here, fill it in" in scripts["README.md"].text


def test_a_gpu_of_the_studys_own_is_a_name_and_no_command(tmp_path: Path) -> None:
    """A name with line breaks and what a shell would run stays on its line of a comment, or is quoted."""
    launch = _launch("vllm", "vllm")
    hostile = "x\n`touch owned`; $(touch owned) #"
    own = launch.joined.node_types[0]
    types = (replace(own, gpu=replace(own.gpu, name=hostile, product="A B")), launch.joined.node_types[1])
    files = _files("vllm", "vllm", replace(launch, joined=replace(launch.joined, node_types=types)))
    write_export(tmp_path, files)
    for words in (("nodes.env",), ("check.sh", "NODE_0"), ("slurm.sh",)):
        env = {**_node(tmp_path, "A B"), "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "gpu1"}
        subprocess.run(["bash", *words], env=env, cwd=tmp_path, capture_output=True, timeout=20, check=False)
    assert not (tmp_path / "owned").exists()


def test_labels_are_those_of_the_feature_discovery() -> None:
    """The driver's name with hyphens for spaces, told apart for every GPU of the catalog that has one; AMD's are
    labelled by another program, whose values are not known here."""
    known = {name: product_label(load_gpu(name)) for name in gpu_names()}
    assert known["h100_sxm"] == "NVIDIA-H100-80GB-HBM3"
    assert known["a100_80_sxm"] == "NVIDIA-A100-SXM4-80GB"
    assert known["mi300x"] is None
    assert all(gpu_of_label(label, ()) == name for name, label in known.items() if label is not None)
    changed = replace(load_gpu("h100"), name="mine")
    assert gpu_of_label("NVIDIA-H100-80GB-HBM3", (changed,)) == "mine"
    assert gpu_of_label("NVIDIA-H100-80GB-HBM3-SHARED", ()) is None


def _node(tmp_path: Path, named: str) -> dict[str, str]:
    """The environment of a node whose driver calls its GPUs so; where Slurm asks, by the name of the host."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name, body in {
        "nvidia-smi": f'case "$1" in --list-gpus) seq 8;; *) for i in 1 2; do echo "{named}"; done;; esac',
        "python3": "echo 0.33.0",
        "df": "echo 65536",
        "scontrol": 'printf "%s\\n" ${3//,/ }',
        "srun": 'while [ "${1#--}" != "$1" ]; do case "$1" in --nodelist=*) export HOST="${1#*=}";; esac; shift; done\n'
        'case "$1" in ./*) echo "$HOST $*" >>"$LOG";; *) exec "$@";; esac\n'
        # the job ends with the first server that does, so that they stay up until all have begun
        '[ "$1" = ./check.sh ] || exec sleep 2',
    }.items():
        program = programs / name
        program.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        program.chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(tmp_path / "log"), "HOME": str(tmp_path)}


def _scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    write_export(folder, _files("vllm", "vllm"))
    text = (folder / "check.sh").read_text(encoding="utf-8")
    (folder / "check.sh").write_text(text.replace('limit="$(ulimit -H -l)"', "limit=unlimited"), encoding="utf-8")
    env = (folder / "nodes.env").read_text(encoding="utf-8").replace("VLLM_SOURCE=", f"VLLM_SOURCE={tmp_path}")
    (folder / "nodes.env").write_text(
        env.replace("NODE_0=", "NODE_0=a").replace("NODE_1=", "NODE_1=b"), encoding="utf-8"
    )
    return folder


def test_a_node_with_other_gpus_is_refused(tmp_path: Path) -> None:
    """check.sh holds what the driver says against what the node must have."""
    folder = _scripts(tmp_path)
    for node, named, code in (
        ("NODE_0", "NVIDIA H200", 0),
        ("NODE_1", "NVIDIA H100 80GB HBM3", 0),
        ("NODE_0", "NVIDIA H100 80GB HBM3", 1),
        ("NODE_1", "NVIDIA H200", 1),
    ):
        found = subprocess.run(
            ["bash", str(folder / "check.sh"), node],
            env=_node(tmp_path, named), capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
        assert found.returncode == code, found.stderr
        assert ("GPUs of type" in found.stderr) == (code == 1)


def test_slurm_finds_the_nodes_of_each_type(tmp_path: Path) -> None:
    """Whatever order the job's nodes come in, NODE_0 is one with the prefill pool's GPUs; a job without one ends."""
    folder = _scripts(tmp_path)
    env = _node(tmp_path, "$([ $HOST = gpu2 ] && echo NVIDIA H200 || echo NVIDIA H100 80GB HBM3)")
    env |= {"SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_NODELIST": "gpu1,gpu2"}
    done = subprocess.run(["bash", str(folder / "slurm.sh")], env=env, capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert "NODE_0=gpu2\nNODE_1=gpu1\n" in (folder / "nodes.env").read_text(encoding="utf-8")
    assert "gpu2 ./prefill-replica0-node0.sh" in Path(env["LOG"]).read_text(encoding="utf-8")
    wrong = env | {"SLURM_JOB_NODELIST": "gpu1,gpu3"}
    done = subprocess.run(["bash", str(folder / "slurm.sh")], env=wrong, capture_output=True, timeout=20, check=False)
    assert done.returncode == 1
    assert b"too few nodes whose GPUs are NVIDIA H200" in done.stderr


def test_pools_of_one_type_take_any_node() -> None:
    """Where all GPUs are alike nothing is selected by them."""
    study = load_study(STUDY, ["engine=vllm", *SETTINGS, "cluster.gpus=16"])
    result = score_plan(study, "P8:TP8+D8:R2/TP4").result
    assert result is not None
    for target in ("vllm", "dynamo", "llm-d", "disaggregatedset"):
        version = find_target(target).versions.get("vllm")
        both = make_pool_launch(study, result, asked=LaunchOptions(), assumptions=(), usual_version=version)
        texts = [file.text for file in pool_files(both, pools_of(result), find_target(target)).values()]
        assert not any(word in text for text in texts for word in ("nodeSelector", "GPU_NAME", "node_gpus", "of type"))


def test_what_runs_is_compared_on_both_types(tmp_path: Path) -> None:
    """An export of pools on two types is the current plan of a comparison, whose heading names both."""
    settings = [word for setting in (*SETTINGS, "engine=vllm") for word in ("--set", setting)]
    out = str(tmp_path / "out")
    done = autotune("export", str(STUDY), *settings, "--plan", PLAN, "--target", "vllm", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    runs = with_current(load_study(STUDY, (*SETTINGS, "engine=vllm")), out, {})
    found = comparison_document(compare(runs.study, candidate="P8:TP8+D8@h200_sxm:TP8", scenarios=False))
    assert found["current"]["plan"] == "vllm:P8@h200_sxm:R1/PP1/ATP8/ADP1/MTP1/EP1+D8:R2/PP1/ATP4/ADP1/MTP1/EP1"
    assert found["cluster"] == "8 x h100_sxm and 8 x h200_sxm"
    assert "on 8 x h100_sxm and 8 x h200_sxm" in comparison_report(found).headline


def test_files_that_people_read_are_yaml() -> None:
    """What selects nodes stands in every pod template of a pool, once."""
    text = _files("vllm", "disaggregatedset")["disaggregatedset.yaml"].text
    assert text.count("nodeSelector") == len(yaml.safe_load(text)["spec"]["roles"])
