"""The tables of a study file that open more than the layout: pools, other GPUs, prices, speculative decoding."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from autotune.study.strict_table import NotNegative, Positive, Section

MAX_CLUSTERS = 64

Counts = Annotated[list[Annotated[int, Field(ge=1, le=1_000_000)]], Field(min_length=1, max_length=MAX_CLUSTERS)]
GpuNames = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=1, max_length=32)]
Prices = Annotated[dict[str, Annotated[float, Field(gt=0, le=1e6)]], Field(max_length=64)]


class DisaggregationTable(Section):
    """How a disaggregated plan's pools are cut and how the KV cache travels between them."""

    link_gb_per_s: Positive | None = Field(
        None,
        description="what one GPU sends or receives of KV cache, GB/s; default: its scale-out link as calibrated, or "
        "its scale-up link where the whole cluster is one scale-up domain",
    )
    start_ms: NotNegative | None = Field(
        None,
        description="handshake before the first byte of a prompt's cache, beside the link's latency, ms; default 0",
    )
    overlap_frac: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the transfer hidden behind the prompt's own prefill (layer by layer), 0 to 1; default 0",
    )
    pool_gpus_multiple_of: int | None = Field(
        None, ge=1, le=100_000, description="pool sizes are multiples of this, GPUs; default 1, any split"
    )


class OtherGpusTable(Section):
    """Further GPUs of the same cluster, of another type, that a pool of a disaggregated plan may take."""

    gpus: int = Field(ge=1, le=1_000_000, description="GPUs of this type, count")
    gpu: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="name of a catalog GPU")
    gpus_per_node: int | None = Field(None, ge=1, le=100_000, description="GPUs of one host, count; default: the GPU's")


class SpeculativeTable(Section):
    """Speculative decoding, as you measured it: the cost model cannot know how often a draft is right."""

    draft_tokens: int = Field(ge=1, le=64, description="tokens drafted and verified in each decode step, count")
    accepted_per_step: Positive = Field(
        description="tokens that a step yields on average, the one that is always right included; 1 to draft_tokens + 1"
    )
    draft_frac: NotNegative | None = Field(
        None, description="time of drafting, as a share of the step that verifies; default 0.05 per draft token"
    )
