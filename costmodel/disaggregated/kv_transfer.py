"""Moving a prompt's KV cache from the GPUs that prefilled it to those that decode it.

Every sending rank sends what it holds of the prompt once, every receiving rank receives what it will hold; ranks
of a replica work side by side, so that the slower side decides (both sides' NICs carry the bytes at once).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.plan.cache_columns import CacheColumns
from costmodel.plan.columns import ArchColumns, Floats, LayoutColumns
from costmodel.plan.precision import PrecisionColumns
from costmodel.plan.stages import StageTable
from costmodel.step.collectives import Links
from costmodel.step.memory import kv_sequence_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLink:
    """How the cache travels between two pools."""

    bytes_per_s: float | None = None
    """What one GPU sends or receives; None: the GPU's achieved link rate (`costmodel.step.collectives.Links`)."""
    start_s: float = 0.0
    """Handshake before the first byte, on top of the link's own latency."""
    hidden_frac: float = 0.0
    """Share of the transfer that runs while the prompt is still being prefilled."""
    same_domain: bool = False
    """Both pools lie in one scale-up domain, so that its links carry the cache."""
    handed_frac: float = 1.0
    """Share of all requests whose cache travels; the others are prefilled where they decode."""
    handed_isl: float | None = None
    """Mean length of the prompts whose cache travels, tokens; None: that of the pool's load."""
    longest_handed: bool = True
    """Whether the longest of all prompts is one of these."""


def sequence_bytes_per_rank(
    arch: ArchColumns,
    layout: LayoutColumns,
    precision: PrecisionColumns,
    stages: StageTable,
    tokens: Floats,
    cache: CacheColumns,
) -> Floats:
    """Cache bytes of one sequence of `tokens` on the rank that holds most of it, shape `(num_plans,)`."""
    return stages.worst(kv_sequence_bytes(arch, layout, precision, tokens, cache))


def wire_s(links: Links, link: TransferLink, rank_bytes: Floats) -> Floats:
    """Seconds in which one rank sends or receives its part of a sequence."""
    rate = links.send_bytes_per_s if link.same_domain else links.remote_bytes_per_s
    return rank_bytes / (rate if link.bytes_per_s is None else np.array([link.bytes_per_s]))


def start_s(links: Links, link: TransferLink) -> Floats:
    """Seconds before the first byte moves."""
    return link.start_s + links.send_t0_s + (0.0 if link.same_domain else links.remote_t0_s)


def exposed_s(link: TransferLink, sending_s: Floats, receiving_s: Floats) -> Floats:
    """What the first token waits for: the slower side, less what was sent while the prompt was being prefilled.

    Means over all requests give the mean over all requests.
    """
    return (1.0 - link.hidden_frac) * np.maximum(sending_s, receiving_s)
