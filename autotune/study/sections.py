"""The tables of a study file about the question itself: limits, objective, search, the plan in production."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from autotune.metrics import OBJECTIVES
from autotune.study import field_types as ft
from autotune.study.field_types import EngineName
from costmodel.dtypes import BYTES_PER_WEIGHT, KV_BYTES

if TYPE_CHECKING:
    pass

DEFAULT_BATCHED_TOKENS = (1024, 2048, 8192, 16384)
"""8,192 is what the measured engines start with on large GPUs; its neighbours trade TTFT for TPOT."""
DEFAULT_MEMORY_UTILIZATION = 0.9
"""vLLM's default `gpu_memory_utilization`; SGLang's `mem_fraction_static` lies near it."""
DEFAULT_MAX_NUM_SEQS = 1024
"""What vLLM's server starts with on GPUs of 70 GiB and more."""
MAX_CLUSTERS = 64
PERCENTILE_FIELDS = tuple(
    (name, share) for name in ("ttft", "tpot", "itl", "e2e") for share in ("p50", "p90", "p95", "p99")
)
"""Latency and percentile of the limits that are simulated: fields `{latency}_{percentile}_s` of `Constraints`."""
REQUEST_LATENCIES = ("ttft", "tpot", "e2e")
"""Latencies that each request has one of."""

if TYPE_CHECKING:
    Maximized: TypeAlias = str
    Minimized: TypeAlias = str
else:
    Maximized = Literal[tuple(m for m, d in OBJECTIVES.items() if d == "maximize")]
    Minimized = Literal[tuple(m for m, d in OBJECTIVES.items() if d == "minimize")]
Degrees = Annotated[tuple[Annotated[ft.Whole, Field(ge=1, le=1024)], ...], ft.Many, ft.Distinct]
Spares = Annotated[tuple[Annotated[ft.Whole, Field(ge=0, le=100_000)], ...], ft.Many, ft.Distinct]
Overlaps = Annotated[tuple[ft.Truth, ...], ft.Many, ft.Distinct]
StepChoices = Annotated[tuple[ft.StepTokens, ...], ft.Many, ft.Distinct]


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(f"{v:,}" for v in values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Limits of a plan, each optional. `ttft_ms`, `tpot_ms` and `e2e_ms` are on means over requests, unless
    `attainment_frac` is given or goodput is maximized; those with p50, p90, p95 or p99 in their name are on percentiles
    over requests, or, of `itl`, over the gaps between the tokens of all requests."""

    __pydantic_config__ = ft.TABLE
    ttft_s: ft.PositiveMs | None = ft.entry(
        "mean time to first token of a prompt of longest_prompt tokens, queueing included, ms", None, key="ttft_ms"
    )
    tpot_s: ft.PositiveMs | None = ft.entry(
        "mean over requests of (end to end - TTFT) / (output tokens - 1), ms", None, key="tpot_ms"
    )
    ttft_p50_s: ft.PositiveMs | None = ft.percentile("ttft", 50)
    ttft_p90_s: ft.PositiveMs | None = ft.percentile("ttft", 90)
    ttft_p95_s: ft.PositiveMs | None = ft.percentile("ttft", 95)
    ttft_p99_s: ft.PositiveMs | None = ft.percentile("ttft", 99)
    tpot_p50_s: ft.PositiveMs | None = ft.percentile("tpot", 50)
    tpot_p90_s: ft.PositiveMs | None = ft.percentile("tpot", 90)
    tpot_p95_s: ft.PositiveMs | None = ft.percentile("tpot", 95)
    tpot_p99_s: ft.PositiveMs | None = ft.percentile("tpot", 99)
    itl_p50_s: ft.PositiveMs | None = ft.percentile("itl", 50)
    itl_p90_s: ft.PositiveMs | None = ft.percentile("itl", 90)
    itl_p95_s: ft.PositiveMs | None = ft.percentile("itl", 95)
    itl_p99_s: ft.PositiveMs | None = ft.percentile("itl", 99)
    e2e_p50_s: ft.PositiveMs | None = ft.percentile("e2e", 50)
    e2e_p90_s: ft.PositiveMs | None = ft.percentile("e2e", 90)
    e2e_p95_s: ft.PositiveMs | None = ft.percentile("e2e", 95)
    e2e_p99_s: ft.PositiveMs | None = ft.percentile("e2e", 99)
    attainment_frac: ft.Fraction | None = ft.entry(
        "share of requests, at least, that keep all of ttft_ms, tpot_ms and e2e_ms at once, each of which is then a "
        "limit on single requests and no longer on the mean; 0 to 1; simulated",
        None,
    )
    e2e_s: ft.PositiveMs | None = ft.entry(
        "time from arrival to the last token, mean over requests, ms", None, key="e2e_ms"
    )
    memory_util_frac: ft.Fraction | None = ft.entry("memory used over total memory on the fullest GPU, 0 to 1", None)
    min_total_tokens_per_s_per_gpu: ft.Positive | None = ft.entry(
        "prompt and output tokens per second over all GPUs, at least; tokens/s/GPU", None
    )
    min_output_tokens_per_s_per_gpu: ft.Positive | None = ft.entry(
        "output tokens per second over all GPUs, at least; tokens/s/GPU", None
    )
    min_stage_tokens_per_s_per_gpu: ft.Positive | None = ft.entry(
        "prompt and output tokens per second through one replica over the GPUs of one of its pipeline stages, at "
        "least; tokens/s/GPU",
        None,
    )
    min_gpu_util_frac: ft.Fraction | None = ft.entry("GPU utilisation, at least; 0 to 1", None)

    @property
    def has_percentiles(self) -> bool:
        """Whether there is a limit on a percentile over requests."""
        return any(getattr(self, f"{name}_{share}_s") is not None for name, share in PERCENTILE_FIELDS)

    def on_means(self) -> Constraints:
        """Limits on means alone, for the closed form: single requests are held against theirs by simulation.

        The mean is to keep what nine requests in ten or all of them together have to keep.
        """
        means: dict[str, float | None] = {}
        for name in REQUEST_LATENCIES:
            fields = (f"{name}_s", f"{name}_p90_s", f"{name}_p95_s", f"{name}_p99_s")
            means[f"{name}_s"] = min((b for f in fields if (b := getattr(self, f)) is not None), default=None)
        dropped = dict.fromkeys((f"{name}_{share}_s" for name, share in PERCENTILE_FIELDS), None)
        return replace(self, **dropped, **means, attainment_frac=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveTable:
    """What is best: exactly one of `maximize` and `minimize`."""

    __pydantic_config__ = ft.TABLE
    maximize: Maximized | None = ft.entry(
        "metric to make as large as possible; the default is total_tokens_per_s_per_gpu; with cluster.also and "
        "no rate total_tokens_per_s, as a plan need not use the GPUs of every type. "
        "goodput_requests_per_s_per_gpu counts the requests that keep all of ttft_ms, tpot_ms and e2e_ms at once "
        "(where one is not given, the bound of its highest percentile that is); simulated, so that it needs a load",
        None,
    )
    minimize: Minimized | None = ft.entry(
        "metric to make as small as possible: seconds, US dollars (every GPU type needs a price), or the GPU count "
        "(search.gpus opens it; plans with equally many are ordered by throughput per GPU)",
        None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The one metric by which plans are ranked."""

    metric: str
    direction: str
    """`maximize` or `minimize`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What may be varied beside the layout, and how far to look. A list holds the values to choose from."""

    __pydantic_config__ = ft.TABLE
    concurrency: ft.Concurrency | None = ft.entry(
        "requests in flight over all replicas: a list, or {min=, max=}; if workload gives none", None
    )
    max_num_batched_tokens: StepChoices = ft.entry(
        "token budget of one step (prefill chunk), tokens; default [1024, 2048, 8192, 16384]",
        DEFAULT_BATCHED_TOKENS,
        assumed=_listed,
    )
    attn_cp: Degrees = ft.entry(
        "context-parallel degrees of prefill attention, GPUs; default [1]", (1,), assumed=_listed
    )
    dcp: Degrees = ft.entry("context-parallel degrees of decode attention, GPUs; default [1]", (1,), assumed=_listed)
    redundant_experts: Spares = ft.entry(
        "redundant expert instances per layer (EPLB), count; default [0]", (0,), assumed=_listed
    )
    two_batch_overlap: Overlaps = ft.entry(
        "whether steps run as two batches, the exchange of one's tokens with experts behind the other's computation, "
        "where the engine can: false, true or both; default [false]",
        (False,),
    )
    weight_dtype: ft.WeightDtypes = ft.entry(
        f"storage dtypes of the weights: {', '.join(BYTES_PER_WEIGHT)}; default: the checkpoint's",
        (None,),
        assumed="the checkpoint's",
    )
    kv_dtype: ft.KvDtypes = ft.entry(
        f"storage dtypes of the KV cache: {', '.join(KV_BYTES)}; default: the checkpoint's",
        (None,),
        assumed="the checkpoint's",
    )
    trials: ft.Whole | None = ft.entry("most candidates scored, count; default: no limit", None, ge=1, le=10_000_000)
    timeout_s: ft.Positive | None = ft.entry("most time spent on sampling, s; default: no limit", None)
    seed: ft.Whole = ft.entry("seed of the sampler; no unit", 0, ge=0, le=2**32 - 1)
    min_p_meets: ft.Share = ft.entry(
        "plans are ranked first whose probability to meet the constraints is at least this", 0.5
    )
    sampler: Literal["auto", "tpe", "nsga2", "random"] = ft.entry(
        "how a space too large to be covered is sampled; auto: tpe, or nsga2 for several objectives (--pareto)", "auto"
    )
    exhaustive_limit: ft.Whole = ft.entry(
        "spaces of at most this many candidates are covered whole, count", 20_000, ge=0, le=10_000_000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTable(Search):
    """What may be varied, and how far to look. A list holds the values to choose from."""

    disaggregated: Literal["off", "auto", "only"] | None = ft.entry(
        "plans with one pool of GPUs that prefills and one that decodes: not looked at, ranked among the others "
        "(auto), or alone (only); default: auto where the model has experts and TTFT and TPOT are both limited, else "
        "off",
        None,
    )
    stage_layers: Literal["engine", "balanced"] = ft.entry(
        "layers of each pipeline stage: as the engine splits them, or chosen so that the slowest stage is as fast as "
        "it can be (where the engine can be told)",
        "engine",
    )
    gpus: ft.GpuCounts = ft.entry(
        "other GPU counts to look at beside cluster.gpus, a list or {min=, max=, step=} (step: default min): all plans "
        'compete; count; default: none; with minimize = "gpus" up to 64 counts, multiples of what holds the weights',
        (),
        min_length=1,
        max_length=MAX_CLUSTERS,
    )
    gpu: tuple[ft.GpuName, ...] = ft.entry(
        "other GPU types to look at, each with as many GPUs, by catalog name: all plans compete; default: none",
        (),
        min_length=1,
        max_length=32,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnOptions:
    """How the engine in production is started where that is not as `[engine_options]` has it for every other plan."""

    __pydantic_config__ = ft.TABLE
    gpu_memory_utilization: ft.Fraction | None = ft.entry(
        "share of total GPU memory that it may fill, 0 to 1; default: that of engine_options", None
    )
    max_num_seqs: ft.Whole | None = ft.entry(
        "sequences running at once per attention-DP rank, not of a disaggregated plan; default: that of engine_options",
        None,
        ge=1,
        le=1_000_000,
    )
    cuda_graphs: ft.Truth | None = ft.entry(
        "whether its decode steps are replayed as CUDA graphs; default: that of engine_options", None
    )
    speculative: ft.Truth | None = ft.entry(
        "whether it decodes as the table speculative says; default: true where the study has one", None
    )
    not_priced: tuple[ft.Option, ...] = ft.entry(
        "what else it is started with that changes speed or memory and that no formula knows, as it is written; "
        "default: nothing",
        (),
        max_length=64,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The plan in production, that every other is compared with."""

    __pydantic_config__ = ft.TABLE
    plan: str = ft.entry(
        "a plan string such as EP16/PP2/TP4/DP4, resolved against cluster.gpus", min_length=1, max_length=500
    )
    engine: EngineName | None = ft.entry("engine it runs on, also another than is searched; default: the study's", None)
    concurrency: ft.Requests | None = ft.entry("requests in flight over all replicas; default: the study's", None)
    max_num_batched_tokens: ft.StepTokens | None = ft.entry(
        "token budget of one engine step, tokens; default: the best of the search", None
    )
    weight_dtype: ft.WeightDtype | None = ft.entry(
        "storage dtype of the weights; default: that of search, the checkpoint's where it has several", None
    )
    kv_dtype: ft.KvDtype | None = ft.entry(
        "storage dtype of the KV cache; default: that of search, the checkpoint's where it has several", None
    )
    decode_max_num_seqs: ft.Whole | None = ft.entry(
        "of a disaggregated plan: slots of the decode pool, per attention-DP rank; default: as many as its limits on "
        "latency and its KV cache admit",
        None,
        ge=1,
    )
    max_local_prefill_tokens: ft.LocalTokens | None = ft.entry(
        "of a disaggregated plan: prompts with at most so many tokens to compute are prefilled where they decode; 0: "
        "none; default: the best of the search",
        None,
    )
    engine_options: OwnOptions | None = ft.entry(
        "how its engine is started where that is not as engine_options says; the candidates are scored with the "
        "study's own. Default: as they are",
        None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How every plan's engine is started."""

    __pydantic_config__ = ft.TABLE
    gpu_memory_utilization: ft.Fraction = ft.entry(
        "share of total GPU memory that the engine may fill, 0 to 1; default: 0.9, or "
        "constraints.memory_util_frac where that is less",
        DEFAULT_MEMORY_UTILIZATION,
        assumed="{:g} of total memory",
    )
    max_num_seqs: ft.Whole = ft.entry(
        "sequences running at once per attention-DP rank; default 1024",
        DEFAULT_MAX_NUM_SEQS,
        ge=1,
        le=1_000_000,
        assumed="{:,} per attention-DP rank",
    )
    cuda_graphs: ft.Truth = ft.entry(
        "decode steps are replayed as CUDA graphs; false: eager, which was never measured",
        True,
        assumed="decode steps run as CUDA graphs",
    )
