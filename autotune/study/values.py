"""What a study asks, resolved: SI units, nothing left open, nothing to validate any more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotune.study.operation import RetunePolicy, Switch
from autotune.study.wider_search import Axes
from costmodel.arch import Arch
from costmodel.calibration.profile import Profile
from costmodel.hardware import Cluster
from costmodel.serving.requests import RequestKind

OBJECTIVES: dict[str, str] = {
    "total_tokens_per_s_per_gpu": "maximize",
    "output_tokens_per_s_per_gpu": "maximize",
    "total_tokens_per_s": "maximize",
    "output_tokens_per_s": "maximize",
    "requests_per_s": "maximize",
    "ttft_s": "minimize",
    "tpot_s": "minimize",
    "usd_per_million_tokens": "minimize",
    "gpus": "minimize",
}
"""Metric that a study may be about -> the direction in which it is better."""
FEWEST_IN_FLIGHT = ("ttft_s", "tpot_s")
"""Metrics that fewer requests in flight only improve; of all others, more never hurts within the limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntRange:
    """Whole numbers from `min` to `max`, both included."""

    min: int
    max: int
    average: float | None = None
    """Mean, where it is known (recorded traffic); None: uniform over the range."""

    @property
    def mean(self) -> float:
        """Mean of what lies in the range."""
        return (self.min + self.max) / 2.0 if self.average is None else self.average


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is asked of the service. At most one of `concurrency` and `request_rate_per_s` is given."""

    isl: IntRange
    """Prompt length, tokens, uniform."""
    osl: IntRange
    """Output length, tokens, uniform."""
    concurrency: int | None
    """Closed loop: requests in flight over all replicas. None with no rate either: searched."""
    request_rate_per_s: float | None
    """Open loop: requests arriving per second over all replicas."""
    prefix_cache_hit_frac: float
    """Share of prompt tokens found in the prefix cache."""
    expert_skew: float
    """Exponent of the power law of expert popularity; 0 is balanced routing."""
    longest_prompt: int
    """Prompt length that the TTFT limit is checked at, tokens."""
    points: tuple[RequestKind, ...] = ()
    """Kinds of requests that are evaluated one by one and put together; weights sum to 1. Empty: all have mean lengths.
    """
    rate_levels_per_s: tuple[float, ...] = ()
    """Recorded traffic: requests per second in equal shares of the time. Empty: `request_rate_per_s` all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Limits of a plan; None: no limit. `ttft_s` and `tpot_s` limit means, not percentiles."""

    ttft_s: float | None
    """Mean time to first token of a prompt of `longest_prompt` tokens, queueing included."""
    tpot_s: float | None
    """Mean over requests of (e2e - TTFT) / (output tokens - 1)."""
    memory_util_frac: float | None
    """Memory used over total memory, on the fullest GPU."""
    min_total_tokens_per_s_per_gpu: float | None
    """Prompt and output tokens per second of the service over all its GPUs."""
    min_output_tokens_per_s_per_gpu: float | None
    """Output tokens per second of the service over all its GPUs."""
    min_stage_tokens_per_s_per_gpu: float | None
    """Prompt and output tokens per second through a replica over the GPUs of one of its pipeline stages."""
    min_gpu_util_frac: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The one metric by which plans are ranked."""

    metric: str
    direction: str
    """`maximize` or `minimize`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What may be varied, and how far to look."""

    concurrency: tuple[int, ...] | IntRange | None
    """Requests in flight to choose from; None where the workload fixes the load."""
    max_num_batched_tokens: tuple[int, ...]
    attn_cp: tuple[int, ...]
    dcp: tuple[int, ...]
    redundant_experts: tuple[int, ...]
    weight_dtype: tuple[str | None, ...]
    """None: the checkpoint's own."""
    kv_dtype: tuple[str | None, ...]
    trials: int | None
    timeout_s: float | None
    seed: int
    min_p_meets: float
    sampler: str
    exhaustive_limit: int
    """Spaces of at most this many candidates are covered whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The plan in production, that every other is compared with. None: as the study has it."""

    plan: str
    engine: str | None
    concurrency: int | None
    max_num_batched_tokens: int | None
    weight_dtype: str | None
    kv_dtype: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How every plan's engine is started."""

    gpu_memory_utilization: float
    """Share of total memory that the engine may fill."""
    cuda_graphs: bool
    max_num_seqs: int
    """Sequences that run at once, per attention-DP rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One question: which plan serves this model on this cluster best. From `load_study`."""

    name: str
    path: Path
    """The file, for messages: nothing is read from it any more."""
    engine: str
    """`vllm`, `sglang`, `trtllm` or `any`."""
    engine_version: str | None
    arch: Arch
    cluster: Cluster
    workload: Workload
    constraints: Constraints
    objective: Objective
    search: Search
    baseline: Baseline | None
    engine_options: EngineOptions
    axes: Axes
    switch: Switch
    retune: RetunePolicy
    calibration: Profile | None
    """The user's own calibration."""
    assumptions: tuple[str, ...]
    """What the study, the model and the GPU left open and how it was filled in, in plain sentences."""
    overrides: tuple[str, ...] = ()
    """The `--set` settings that made it of its file, as they were given."""
