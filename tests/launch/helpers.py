"""Services made by hand, so that what is tested is the launch files and not the cost model."""

from __future__ import annotations

from functools import lru_cache

from autotune.launch.engines.build import launch_plan
from autotune.launch.engines.options import OptionList, option_list, versions
from autotune.launch.limits import StartLimits
from autotune.launch.plan import BenchLoad, LaunchPlan, Service
from autotune.space import Candidate, enumerate_space, format_plan
from autotune.tuning import Knobs
from costmodel.arch import Arch, load_model
from costmodel.hardware import Cluster, load_gpu

MODELS = ("deepseek-v3", "qwen3-235b", "llama-3.1-70b", "gpt-oss-120b")
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
    ttft_varied_s=0.4,
    tpot_s=0.02,
    output_tokens_per_s=2048.0,
)


def cluster(gpus: int, per_node: int = 8) -> Cluster:
    """H100s."""
    return Cluster(gpus=gpus, gpu=load_gpu("h100"), gpus_per_node=min(per_node, gpus))


@lru_cache(maxsize=64)
def plans(model: str, engine: str, gpus: int) -> tuple[Candidate, ...]:
    """Every valid plan."""
    return enumerate_space(load_model(model), gpus=gpus, engine=engine).candidates


def service(candidate: Candidate, arch: Arch, *, per_node: int = 8, **changes: object) -> Service:
    """A service of one plan."""
    layout = candidate.layout
    values: dict[str, object] = {
        "name": "test",
        "engine": candidate.engine,
        "version": versions(candidate.engine)[0],
        "arch": arch,
        "model": arch.name,
        "model_given": False,
        "cluster": cluster(layout.gpus, per_node),
        "layout": layout,
        "knobs": Knobs(concurrency=64, max_num_batched_tokens=2048, max_num_seqs=37, weight_dtype=None, kv_dtype=None),
        "plan": format_plan(layout, candidate.engine),
        "limits": LIMITS,
        "load": LOAD,
        "exchange": "none" if layout.width == 1 or not arch.is_moe else "gather" if layout.attn_dp > 1 else "reduce",
    }
    return Service(**(values | changes))  # type: ignore[arg-type]  # a mapping of mixed values


def launched(made: Service, options: OptionList | None = None) -> LaunchPlan:
    """The processes of a service, with the options of its version."""
    return launch_plan(made, options or option_list(made.engine, made.version))
