"""What a study may open beside the layout: disaggregated pools, other GPUs and GPU counts, speculative decoding."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.study import field_types as ft
from costmodel.hardware import Cluster

DRAFT_FRAC_PER_TOKEN = 0.05
"""Assumed: a draft head such as DeepSeek-V3's next-token module is one layer of 61 and is run once per token, and the
embedding and LM head with it (arXiv 2412.19437, section 2.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPrefill:
    """Which prompts a front sends straight to the decode pool, and what that leaves to the prefill pool."""

    max_tokens: int
    """Prompts with at most so many tokens to compute."""
    frac: float
    """Their share of all requests."""
    new: float
    """Tokens of each that are computed, mean."""
    cached: float
    """Tokens of each that are found in the prefix cache, mean."""
    cold: bool
    """Whether some of these prompts have nothing in the prefix cache."""
    longest_new: float
    """Tokens that are computed of the longest of all prompts, where it is one of these; 0: it is not."""
    longest_cached: float
    """The same of those that are found in the prefix cache."""
    others_isl: float
    """Mean length of the prompts that the prefill pool is left with, tokens."""
    others_hit_frac: float
    """Share of their tokens that is found in the prefix cache."""
    others_cv2: float
    """Squared coefficient of variation of their lengths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disaggregation:
    """How a disaggregated plan's pools are cut and how the KV cache travels between them."""

    __pydantic_config__ = ft.TABLE
    link_bytes_per_s: ft.GbPerS | None = ft.entry(
        "what one GPU sends or receives of KV cache, GB/s; default: its scale-out link as calibrated, or its scale-up "
        "link where the whole cluster is one scale-up domain",
        None,
        key="link_gb_per_s",
    )
    start_s: ft.NotNegativeMs = ft.entry(
        "handshake before the first byte of a prompt's cache, beside the link's latency, ms; default 0",
        0.0,
        key="start_ms",
        assumed="0 ms beside the link's latency",
    )
    overlap_frac: ft.Share = ft.entry(
        "share of the transfer hidden behind the prompt's own prefill (layer by layer), 0 to 1; default 0",
        0.0,
        assumed="0 (the KV transfer begins when the prefill is done)",
    )
    pool_gpus_multiple_of: ft.NodeGpus = ft.entry(
        "pool sizes are multiples of this, GPUs; default 1, any split", 1, assumed="1 (any split of the GPUs)"
    )
    prefill_max_num_batched_tokens: ft.Whole | None = ft.entry(
        "prompt tokens of a pass of the prefill pool, per attention-DP rank; default: search.max_num_batched_tokens",
        None,
        ge=1,
    )
    prefill_max_num_seqs: ft.Whole | None = ft.entry(
        "prompts of a pass of the prefill pool, per attention-DP rank; default: engine_options.max_num_seqs", None, ge=1
    )
    decode_max_num_seqs: ft.Whole | None = ft.entry(
        "most slots: sequences that the decode pool runs at once, per attention-DP rank, beyond which requests wait; "
        "default: engine_options.max_num_seqs",
        None,
        ge=1,
    )
    max_local_prefill_tokens: ft.LocalChoices = ft.entry(
        "conditional disaggregation: prompts with at most so many tokens to compute (prefix hits not counted) are "
        "prefilled where they decode; a list to choose from, 0: none; where the engine can; default [0]",
        (0,),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherGpusTable:
    """Further GPUs of the same cluster, of another type, that a pool of a disaggregated plan may take."""

    __pydantic_config__ = ft.TABLE
    gpus: ft.Gpus = ft.entry("GPUs of this type, count")
    gpu: ft.GpuName = ft.entry("name of a catalog GPU")
    gpus_per_node: ft.NodeGpus | None = ft.entry("GPUs of one host, count; default: the GPU's", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculative:
    """Speculative decoding, as you measured it: the cost model cannot know how often a draft is right."""

    __pydantic_config__ = ft.TABLE
    draft_tokens: ft.Whole = ft.entry("tokens drafted and verified in each decode step, count", ge=1, le=64)
    accepted_per_step: ft.Positive = ft.entry(
        "tokens that a step yields on average, the one that is always right included; 1 to draft_tokens + 1"
    )
    draft_frac: ft.NotNegative | None = ft.entry(
        "time of drafting, as a share of the step that verifies; default 0.05 per draft token", None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WiderSearch(Disaggregation):
    """What a study opens beside the layout, resolved; the defaults open nothing."""

    local_prefill: LocalPrefill | None = None
    """Of a study that is narrowed to one of `max_local_prefill_tokens`; None: no prompt is prefilled where it decodes.
    """
    disaggregated: str = "off"
    """`off`, `auto` (disaggregated plans compete with the others) or `only`."""
    one_domain: bool = True
    """Whether the links of a scale-up domain carry caches where it holds the whole cluster; else the network does."""
    other_gpus: tuple[Cluster, ...] = ()
    """Of the same cluster, of other types: for pools."""
    gpu_counts: tuple[int, ...] = ()
    """GPU counts to try, the cluster's among them, ascending; empty: the cluster's alone."""
    gpu_types: tuple[Cluster, ...] = ()
    """Clusters of other GPU types to try instead, each with the cluster's number of GPUs."""
    speculative: Speculative | None = None
    balanced_stages: bool = False
    """Layers per pipeline stage are chosen, where the engine can be told, instead of taken as it splits them."""
