"""Services made by hand, so that what is tested is the launch files and not the cost model."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.option_reader import Command, OptionReader
from autotune.engines.options import OptionList
from autotune.engines.service import BenchLoad, Knobs, Service, StartLimits
from autotune.launch.plan import LaunchPlan
from autotune.launch.pools.make import PoolLaunch, make_pool_launch
from autotune.launch.reading.plan_of_command import knobs_of, layout_of, same_servers
from autotune.launch.reading.sources import Reader, with_config
from autotune.launch.replicas import launch_plan
from autotune.launch.service import LaunchOptions
from autotune.launch.targets.scripts import config_files, process_script
from autotune.space import Candidate, enumerate_space, format_plan
from autotune.study import Study
from autotune.traffic.load import load_study
from autotune.tuning import PlanResult, score_plan
from costmodel.arch import Arch, load_model
from costmodel.errors import InputError
from costmodel.hardware import Cluster, load_gpu
from costmodel.plan.layout import Layout
from tests.studies import FOLDER

MODELS = ("deepseek-v3", "qwen3-235b", "llama-3.1-70b", "gpt-oss-120b")
NODE_RULES = ("whole_nodes", "dp_rank_nodes", "stages_per_node")
"""Rules by which a valid plan cannot be placed on nodes."""
LIMITS = StartLimits(
    max_model_len=5376,
    max_num_seqs=37,
    max_num_batched_tokens=2048,
    gpu_memory_utilization=0.9,
    static_fraction=0.871,
    kv_free_fraction=0.803,
    kv_room_bytes=5e9,
    kv_needed_bytes=4e9,
    weight_bytes=2e10,
)
LOAD = BenchLoad(
    isl=(4096, 4096),
    osl=(1024, 1024),
    concurrency=64,
    request_rate_per_s=None,
    prefix_hit_frac=0.0,
    requests_per_s=2.0,
    ttft_s=0.5,
    ttft_steady_s=0.4,
    tpot_s=0.02,
    output_tokens_per_s=2048.0,
)


def cluster(gpus: int, per_node: int = 8) -> Cluster:
    """H100s."""
    return Cluster(gpus=gpus, gpu=load_gpu("h100"), gpus_per_node=min(per_node, gpus))


@lru_cache(maxsize=64)
def plans(model: str, engine: str, gpus: int, version: str | None = None) -> tuple[Candidate, ...]:
    """Every plan that is valid for a version of the engine; None: the newest."""
    return enumerate_space(load_model(model), gpus=gpus, engine=engine, version=version).candidates


def service(
    candidate: Candidate, arch: Arch, *, per_node: int = 8, load: BenchLoad = LOAD, **changes: object
) -> Service:
    """A service of one plan."""
    layout = candidate.layout
    values: dict[str, object] = {
        "name": "test",
        "engine": candidate.engine,
        "version": ENGINES[candidate.engine].versions()[0],
        "arch": arch,
        "model": arch.name,
        "model_given": False,
        "cluster": cluster(layout.gpus, per_node),
        "layout": layout,
        "knobs": Knobs(concurrency=64, max_num_batched_tokens=2048, max_num_seqs=37, weight_dtype=None, kv_dtype=None),
        "plan": format_plan(layout, candidate.engine),
        "limits": LIMITS,
        "make_load": lambda: load,
        "exchange": "none" if layout.width == 1 or not arch.is_moe else "gather" if layout.attn_dp > 1 else "reduce",
    }
    return Service(**(values | changes))  # type: ignore[arg-type]  # a mapping of mixed values


def launched(made: Service, options: OptionList | None = None) -> LaunchPlan:
    """The processes of a service, with the options of its version."""
    return launch_plan(made, options or ENGINES[made.engine].options(made.version))


def expressible(made: Service) -> LaunchPlan | None:
    """The processes, or nothing where nodes are the reason, or that a version cuts shared experts unless it is told to
    use DeepEP; any other refusal fails the test.
    """
    try:
        return launched(made)
    except InputError as error:
        if any(rule in str(error) for rule in (*NODE_RULES, "shared_expert_shards: without DeepEP")):
            return None
        raise


def read_back(plan: LaunchPlan, folder: Path, arch: Arch) -> tuple[Layout, dict[str, Any]]:
    """Layout and knobs that the scripts say, from their text alone."""
    texts = [process_script(plan, process) for process in plan.processes]
    reader = Reader(version=plan.service.version, given={})
    commands = [(found.command, 1) for text in texts for found in reader.script(text)]
    return understood_commands(commands, plan, folder, arch)


def understood_commands(
    commands: list[tuple[Command, int]], plan: LaunchPlan, folder: Path, arch: Arch
) -> tuple[Layout, dict[str, Any]]:
    """Layout and knobs of commands with how often each runs; every option of theirs is known."""
    for name, file in config_files(plan).items():
        (folder / name).write_text(file.text)
    found = [(with_config(c, folder), n) for c, n in commands]
    assert not [unknown for c, _ in found for unknown in c.unknown]
    heads = [(c, n) for c, n in found if not plan.engine.is_worker(c)]
    same_servers([c for c, _ in heads])
    options = OptionReader(command=heads[0][0], gpu_gib=80.0)
    layout = layout_of(options, arch, sum(n for _, n in heads))
    knobs = knobs_of(options, layout)
    assert not options.problems
    return layout, knobs


def run_script(
    text: str, folder: Path, programs: tuple[str, ...] = ("vllm", "python3", "trtllm-serve", "mpirun")
) -> list[str]:
    """Arguments that the engine's program gets when the script runs, with programs that only write them down."""
    folder.mkdir(exist_ok=True)
    (folder / "nodes.env").write_text("NODE_0=first\nNODE_1=second\n")
    for name in programs:
        program = folder / name
        program.write_text('#!/usr/bin/env bash\nprintf "%s\\0" "$@" > "$RECORD"\n')
        program.chmod(0o755)
    (folder / "script.sh").write_text(text, newline="")
    record = folder / "record"
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "RECORD": str(record), "HOME": str(folder)}
    subprocess.run(["bash", str(folder / "script.sh")], check=True, env=env, cwd=folder, timeout=20)
    assert not (folder / "owned").exists()
    return record.read_bytes().decode().split("\0")[:-1]


WHOLE = "P32:R4/TP8+D96:R3/EP32"
"""Pools of DeepSeek-V3 over nodes; those of other strings are of Llama-70B."""


@lru_cache
def scored_pools(engine: str, plan: str) -> tuple[Study, PlanResult]:
    """A plan of two pools, with the study that it belongs to."""
    rate = "workload.request_rate_per_s=1"
    name, more = ("deepseek-v3-128xh200", []) if plan == WHOLE else ("llama-70b-16xh100", [rate])
    study = load_study(FOLDER / f"{name}.toml", [f"engine={engine}", *more])
    found = score_plan(study, plan, engine=engine).result
    assert found is not None
    return study, found


def pool_launch(engine: str, plan: str) -> PoolLaunch:
    """The processes of a plan of two pools."""
    return make_pool_launch(*scored_pools(engine, plan), asked=LaunchOptions(), assumptions=(), usual_version=None)
