"""The study file: what may stand in it. Units stand in the keys; every limit is named.

Only the shape of each field is checked here; rules between fields are in `rules`, values in SI in `values`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Discriminator, Field, Tag

from autotune.study.operation_schema import RetuneTable, SwitchTable
from autotune.study.strict_table import Fraction, Positive, Section
from autotune.study.values import OBJECTIVES
from autotune.study.wider_search_schema import (
    Counts,
    DisaggregationTable,
    GpuNames,
    OtherGpusTable,
    Prices,
    SpeculativeTable,
)
from costmodel.dtypes import BYTES_PER_WEIGHT, KV_BYTES

MAX_GPUS = 1_000_000
MAX_TOKENS = 100_000_000
MAX_CONCURRENCY = 100_000_000
MAX_CHOICES = 1_000

Engine = Literal["vllm", "sglang", "trtllm"]
_WEIGHTS = ", ".join(BYTES_PER_WEIGHT)


def _by_shape(value: Any) -> str:
    """Which arm of a union a value is meant for; the tags start with `~` so that paths can leave them out."""
    if isinstance(value, (dict, BaseModel)):
        return "~table"
    return "~list" if isinstance(value, list) else "~plain"


class TokenRange(Section):
    """Uniform between two lengths."""

    min: int = Field(ge=1, le=MAX_TOKENS, description="shortest, tokens")
    max: int = Field(ge=1, le=MAX_TOKENS, description="longest, tokens")


class ConcurrencyRange(Section):
    """Any number of requests in flight between two."""

    min: int = Field(ge=1, le=MAX_CONCURRENCY, description="fewest requests in flight over all replicas")
    max: int = Field(ge=1, le=MAX_CONCURRENCY, description="most requests in flight over all replicas")


Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Requests = Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)]
Lengths = Annotated[
    Annotated[Tokens, Tag("~plain")] | Annotated[TokenRange, Tag("~table")],
    Discriminator(lambda v: "~plain" if _by_shape(v) == "~list" else _by_shape(v)),
]
NameOrTable = Annotated[
    Annotated[Annotated[str, Field(min_length=1, max_length=4096)], Tag("~plain")]
    | Annotated[dict[str, Any], Tag("~table")],
    Discriminator(lambda v: "~plain" if _by_shape(v) == "~list" else _by_shape(v)),
]
ConcurrencyChoice = Annotated[
    Annotated[Annotated[list[Requests], Field(min_length=1, max_length=MAX_CHOICES)], Tag("~list")]
    | Annotated[ConcurrencyRange, Tag("~table")],
    Discriminator(lambda v: "~list" if _by_shape(v) == "~plain" else _by_shape(v)),
]
TokenChoices = Annotated[list[Annotated[int, Field(ge=16, le=10_000_000)]], Field(min_length=1, max_length=MAX_CHOICES)]
Degrees = Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=1, max_length=MAX_CHOICES)]
Spares = Annotated[list[Annotated[int, Field(ge=0, le=100_000)]], Field(min_length=1, max_length=MAX_CHOICES)]
Version = Annotated[str, Field(min_length=1, max_length=64)]
if TYPE_CHECKING:
    WeightDtype: TypeAlias = str
    KvDtype: TypeAlias = str
else:  # one list of dtypes, in costmodel.dtypes
    WeightDtype = Literal[tuple(BYTES_PER_WEIGHT)]
    KvDtype = Literal[tuple(KV_BYTES)]


class ClusterTable(Section):
    """The GPUs that a plan has to use, all of one type."""

    gpus: int = Field(ge=1, le=MAX_GPUS, description="GPUs that every plan uses exactly, count")
    gpu: NameOrTable = Field(
        description="name of a catalog GPU (`autotune catalog`), or a table with the catalog's keys; "
        "`base` in the table names a catalog GPU whose figures it changes"
    )
    gpus_per_node: int | None = Field(None, ge=1, le=100_000, description="GPUs of one host, count; default: the GPU's")
    price_per_gpu_hour: Positive | None = Field(None, description="US dollars per GPU and hour; default: the GPU's")
    also: Annotated[list[OtherGpusTable], Field(max_length=16)] = Field(
        default=[], description="GPUs of other types in the same cluster, for the pools of disaggregated plans"
    )


class WorkloadTable(Section):
    """What is asked of the service."""

    isl: Lengths = Field(description="prompt length, tokens: a number, or {min=, max=} for a uniform range")
    osl: Lengths = Field(description="output length, tokens: a number, or {min=, max=} for a uniform range")
    concurrency: Requests | None = Field(
        None,
        description="closed loop: requests in flight over all replicas; omitted: searched. Excludes a rate",
    )
    request_rate_per_s: Positive | None = Field(
        None, description="open loop: requests arriving per second over all replicas. Excludes concurrency"
    )
    prefix_cache_hit_frac: float | None = Field(
        None, ge=0, le=1, description="share of prompt tokens found in the prefix cache, 0 to 1; default 0"
    )
    expert_skew: float | None = Field(
        None,
        ge=0,
        le=10,
        description="exponent of the power law of expert popularity; default 0, balanced routing",
    )
    longest_prompt: Tokens | None = Field(
        None,
        description="prompt length that the TTFT limit is checked at, tokens; default: the maximum of isl",
    )


class ConstraintsTable(Section):
    """Limits of a plan, each optional. Those on TTFT and TPOT are on means over requests, not percentiles."""

    ttft_ms: Positive | None = Field(
        None,
        description="mean time to first token of a prompt of longest_prompt tokens, queueing included, ms",
    )
    tpot_ms: Positive | None = Field(
        None, description="mean over requests of (end to end - TTFT) / (output tokens - 1), ms"
    )
    memory_util_frac: Fraction | None = Field(
        None, description="memory used over total memory on the fullest GPU, 0 to 1"
    )
    min_total_tokens_per_s_per_gpu: Positive | None = Field(
        None, description="prompt and output tokens per second over all GPUs, at least; tokens/s/GPU"
    )
    min_output_tokens_per_s_per_gpu: Positive | None = Field(
        None, description="output tokens per second over all GPUs, at least; tokens/s/GPU"
    )
    min_stage_tokens_per_s_per_gpu: Positive | None = Field(
        None,
        description="prompt and output tokens per second through one replica over the GPUs of one of its "
        "pipeline stages, at least; tokens/s/GPU",
    )
    min_gpu_util_frac: Fraction | None = Field(None, description="GPU utilisation, at least; 0 to 1")


class ObjectiveTable(Section):
    """What is best: exactly one of `maximize` and `minimize`."""

    maximize: Literal[tuple(m for m, d in OBJECTIVES.items() if d == "maximize")] | None = Field(  # type: ignore[valid-type]
        None, description="metric to make as large as possible; the default is total_tokens_per_s_per_gpu"
    )
    minimize: Literal[tuple(m for m, d in OBJECTIVES.items() if d == "minimize")] | None = Field(  # type: ignore[valid-type]
        None,
        description="metric to make as small as possible: seconds, US dollars (every GPU type needs a price), or the "
        "GPU count (search.gpus opens it; plans with equally many are ordered by throughput per GPU)",
    )


class SearchTable(Section):
    """What may be varied beside the layout, and how far to look. A list holds the values to choose from."""

    concurrency: ConcurrencyChoice | None = Field(
        None,
        description="requests in flight over all replicas: a list, or {min=, max=}; if workload gives none",
    )
    max_num_batched_tokens: TokenChoices | None = Field(
        None,
        description="token budget of one step (prefill chunk), tokens; default [2048, 4096, 8192, 16384]",
    )
    attn_cp: Degrees | None = Field(
        None, description="context-parallel degrees of prefill attention, GPUs; default [1]"
    )
    dcp: Degrees | None = Field(None, description="context-parallel degrees of decode attention, GPUs; default [1]")
    redundant_experts: Spares | None = Field(
        None, description="redundant expert instances per layer (EPLB), count; default [0]"
    )
    weight_dtype: Annotated[list[WeightDtype], Field(min_length=1)] | None = Field(
        None, description=f"storage dtypes of the weights: {_WEIGHTS}; default: the checkpoint's"
    )
    kv_dtype: Annotated[list[KvDtype], Field(min_length=1)] | None = Field(
        None, description=f"storage dtypes of the KV cache: {', '.join(KV_BYTES)}; default: the checkpoint's"
    )
    disaggregated: Literal["off", "auto", "only"] = Field(
        "off",
        description="plans with one pool of GPUs that prefills and one that decodes: not looked at, ranked among the "
        "others (auto), or alone (only)",
    )
    stage_layers: Literal["engine", "balanced"] = Field(
        "engine",
        description="layers of each pipeline stage: as the engine splits them, or chosen so that the slowest stage is "
        "as fast as it can be (where the engine can be told)",
    )
    gpus: Counts | None = Field(
        None, description="other GPU counts to look at beside cluster.gpus: all plans compete; count; default: none"
    )
    gpu: GpuNames | None = Field(
        None,
        description="other GPU types to look at, each with as many GPUs, by catalog name: all plans compete; "
        "default: none",
    )
    trials: int | None = Field(
        None, ge=1, le=10_000_000, description="most candidates scored, count; default: no limit"
    )
    timeout_s: Positive | None = Field(None, description="most time spent on sampling, s; default: no limit")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the sampler; no unit")
    min_p_meets: float = Field(
        0.5,
        ge=0,
        le=1,
        description="plans are ranked first whose probability to meet the constraints is at least this",
    )
    sampler: Literal["auto", "tpe", "nsga2", "random"] = Field(
        "auto",
        description="how a space too large to be covered is sampled; auto: tpe, or nsga2 for several objectives "
        "(--pareto)",
    )
    exhaustive_limit: int = Field(
        20_000,
        ge=0,
        le=10_000_000,
        description="spaces of at most this many candidates are covered whole, count",
    )


class BaselineTable(Section):
    """The plan in production, that every other is compared with."""

    plan: str = Field(
        min_length=1,
        max_length=500,
        description="a plan string such as EP16/PP2/TP4/DP4, resolved against cluster.gpus",
    )
    engine: Engine | None = Field(
        None, description="engine it runs on, also another than is searched; default: the study's"
    )
    concurrency: Requests | None = Field(None, description="requests in flight over all replicas; default: the study's")
    max_num_batched_tokens: int | None = Field(
        None,
        ge=16,
        le=10_000_000,
        description="token budget of one engine step, tokens; default: the best of the search",
    )
    weight_dtype: WeightDtype | None = Field(
        None, description="storage dtype of the weights; default: the checkpoint's"
    )
    kv_dtype: KvDtype | None = Field(None, description="storage dtype of the KV cache; default: the checkpoint's")


class EngineOptionsTable(Section):
    """How every plan's engine is started."""

    gpu_memory_utilization: Fraction | None = Field(
        None,
        description="share of total GPU memory that the engine may fill, 0 to 1 (vLLM's and SGLang's); "
        "default: 0.9, or constraints.memory_util_frac where that is less",
    )
    cuda_graphs: bool = Field(True, description="decode steps are replayed as CUDA graphs; false: eager")
    max_num_seqs: int | None = Field(
        None, ge=1, le=1_000_000, description="sequences running at once per attention-DP rank; default 1024"
    )


class StudyTable(Section):
    """A study file."""

    name: str | None = Field(
        None,
        min_length=1,
        max_length=120,
        pattern=r"^[^\x00-\x1f\x7f-\x9f/\\]+$",
        description="what the study is called in tables and in the storage; default: the file's name",
    )
    engine: Literal["vllm", "sglang", "trtllm", "any"] = Field(
        "any", description="serving engine; any: plans of all three compete"
    )
    engine_version: Version | None = Field(None, description="version of the engine; default: the one modelled")
    model: NameOrTable = Field(
        description="name of a catalog model (`autotune catalog`), path of a config.json relative to the "
        "study file or of the folder it lies in, or a table with the content of a config.json"
    )
    approximate: bool = Field(
        False,
        description="take the nearest that there are formulas for where the model's config.json asks for something "
        "else; every result says what was taken",
    )
    cluster: ClusterTable = Field(description="the hardware")
    workload: WorkloadTable = Field(description="the traffic")
    constraints: ConstraintsTable = Field(ConstraintsTable(), description="limits of a plan; default: none")
    objective: ObjectiveTable = Field(ObjectiveTable(), description="what is best")
    search: SearchTable = Field(SearchTable(), description="what may be varied")
    baseline: BaselineTable | None = Field(None, description="the plan in production; default: none")
    engine_options: EngineOptionsTable = Field(EngineOptionsTable(), description="how engines are started")
    disaggregation: DisaggregationTable = Field(
        DisaggregationTable(), description="pools of disaggregated plans and the transfer between them"
    )
    speculative: SpeculativeTable | None = Field(None, description="speculative decoding; default: none")
    prices: Prices = Field(
        default={}, description="US dollars per GPU and hour by catalog name; default: the catalog's, if it has one"
    )
    switch: SwitchTable = Field(SwitchTable(), description="what putting another plan into production takes")
    retune: RetuneTable = Field(RetuneTable(), description="when another plan is worth a switch")
    assumptions: Annotated[list[Annotated[str, Field(min_length=1, max_length=500)]], Field(max_length=100)] = Field(
        default=[], description="what the author of the file filled in; printed with the result"
    )
    calibration: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="path of a calibration profile relative to the study file",
    )
