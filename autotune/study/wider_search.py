"""What a study may open beside the layout: disaggregated pools, other GPUs and GPU counts, speculative decoding."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.hardware import Cluster

DISAGGREGATED = ("off", "auto", "only")
DRAFT_FRAC_PER_TOKEN = 0.05
"""Assumed: a draft head such as DeepSeek-V3's next-token module is one layer of 61 and is run once per token, and the
embedding and LM head with it (arXiv 2412.19437, section 2.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculative:
    """Speculative decoding as the user measured it."""

    draft_tokens: int
    accepted_per_step: float
    """Tokens that a decode step yields, mean."""
    draft_frac: float
    """Time of drafting over the time of the step that verifies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Values of the tables of `axes_schema`, in SI units; the defaults open nothing."""

    disaggregated: str = "off"
    """`off`, `auto` (disaggregated plans compete with the others) or `only`."""
    link_bytes_per_s: float | None = None
    start_s: float = 0.0
    overlap_frac: float = 0.0
    pool_gpus_multiple_of: int = 1
    other_gpus: tuple[Cluster, ...] = ()
    """Of the same cluster, of other types: for pools."""
    gpu_counts: tuple[int, ...] = ()
    """GPU counts to try, the cluster's among them, ascending; empty: the cluster's alone."""
    gpu_types: tuple[Cluster, ...] = ()
    """Clusters of other GPU types to try instead, each with the cluster's number of GPUs."""
    speculative: Speculative | None = None
    balanced_stages: bool = False
    """Layers per pipeline stage are chosen, where the engine can be told, instead of taken as it splits them."""
