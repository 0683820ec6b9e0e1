"""Seconds of collectives, by the tier that their group lies in.

Inside one scale-up domain a collective is one latency and `bytes / bandwidth`; across domains it is
hierarchical, as NCCL and DeepEP run it: reduce inside, exchange between domains, spread inside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from costmodel.columns import Columns, Floats, LayoutColumns
from costmodel.placement import Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Links(Columns):
    """Achieved link rates and latencies. Shape `(num_plans,)` or `(1,)`."""

    all_reduce_t0_s: Floats
    """Of the in-domain all-reduce, two ranks."""
    all_reduce_rank_s: Floats
    """Each further rank adds."""
    all_reduce_bytes_per_s: Floats
    exchange_t0_s: Floats
    """Of one dispatch or one combine inside a domain."""
    exchange_bytes_per_s: Floats
    normal_t0_s: Floats
    """What DeepEP's throughput kernels add to the start of its low-latency ones."""
    remote_t0_s: Floats
    """A phase between domains adds."""
    remote_hop_s: Floats
    """Each doubling of the domains adds."""
    remote_bytes_per_s: Floats
    send_t0_s: Floats
    send_bytes_per_s: Floats

    def slowed(self, factor: Floats) -> Links:
        """In-domain all-reduces `factor` times as long."""
        return replace(
            self,
            all_reduce_t0_s=self.all_reduce_t0_s * factor,
            all_reduce_rank_s=self.all_reduce_rank_s * factor,
            all_reduce_bytes_per_s=self.all_reduce_bytes_per_s / factor,
        )


def all_reduce_s(links: Links, ranks: Floats, domains: Floats, message_bytes: Floats) -> Floats:
    """All-reduce of `message_bytes` over `ranks` GPUs that lie in `domains` domains. 0 for one rank.

    A ring or a one-shot kernel moves `2 (n - 1) / n` of the message through each link (Patarasuk and Yuan,
    2009); between domains each rank of a domain carries its share of the message.
    """
    local = ranks / domains
    inside = (
        links.all_reduce_t0_s
        + links.all_reduce_rank_s * np.maximum(local - 2.0, 0.0)
        + 2.0 * (local - 1.0) / local * message_bytes / links.all_reduce_bytes_per_s
    )
    between = (
        2.0 * (links.remote_t0_s + links.remote_hop_s * np.log2(domains))
        + 2.0 * (domains - 1.0) / domains * message_bytes / local / links.remote_bytes_per_s
    )
    return np.where(local > 1.0, inside, 0.0) + np.where(domains > 1.0, between, 0.0)


def gather_s(links: Links, ranks: Floats, domains: Floats, message_bytes: Floats) -> Floats:
    """All-gather or reduce-scatter of a whole of `message_bytes` over the group: half an all-reduce's bytes."""
    local = ranks / domains
    inside = links.exchange_t0_s + (local - 1.0) / local * message_bytes / links.exchange_bytes_per_s
    between = (
        links.remote_t0_s
        + links.remote_hop_s * np.log2(domains)
        + (domains - 1.0) / domains * message_bytes / local / links.remote_bytes_per_s
    )
    return np.where(local > 1.0, inside, 0.0) + np.where(domains > 1.0, between, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeWays:
    """What each way to get a stage's tokens to their experts and back takes, once per MoE layer. Seconds.

    Without attention-DP every rank holds all tokens and the partial sums are all-reduced over the stage. With
    it, the engine either gathers all tokens and scatters the sums (any `moe_tp`), or sends each token only to
    the ranks of its experts (`moe_tp` = 1): whichever is faster, since the backend is a launch flag.
    """

    reduced_s: Floats
    gather_s: Floats
    scatter_s: Floats
    routed_start_s: Floats
    """Of dispatch and combine together, what does not grow with the tokens."""
    routed_s: Floats
    """Dispatch and combine together."""
    message_bytes: Floats
    """The hidden states of all tokens of the stage."""
    routed_bytes: Floats
    """What one rank dispatches and takes back, a copy of a token for each that leaves."""
    dispatch_width_frac: Floats
    """Bytes of a dispatched token over those of a combined one."""

    def fastest_s(self, layout: LayoutColumns) -> Floats:
        """Dispatch and combine the fastest way that the layout allows; 0 for one rank."""
        gathered = self.gather_s + self.scatter_s
        with_dp = np.where(layout.moe_tp > 1.0, gathered, np.minimum(gathered, self.routed_s))
        return np.where(layout.width > 1.0, np.where(layout.attn_dp > 1.0, with_dp, self.reduced_s), 0.0)

    def phases(self, layout: LayoutColumns) -> tuple[tuple[str, Floats, Floats], ...]:
        """The same by collective: name (of `EXCHANGES`), seconds (0 where the plan has none), bytes of one rank."""
        many = layout.width > 1.0
        with_dp = many & (layout.attn_dp > 1.0)
        gathers = with_dp & ((layout.moe_tp > 1.0) | (self.gather_s + self.scatter_s <= self.routed_s))
        routes = with_dp & ~gathers
        sent = self.dispatch_width_frac / (1.0 + self.dispatch_width_frac)
        dispatch_s = self.routed_start_s / 2.0 + sent * (self.routed_s - self.routed_start_s)
        whole, routed = self.message_bytes, self.routed_bytes
        return (
            ("dp_gather", np.where(gathers, self.gather_s, 0.0), whole * self.dispatch_width_frac),
            ("ep_dispatch", np.where(routes, dispatch_s, 0.0), routed * sent),
            ("dp_scatter", np.where(gathers, self.scatter_s, 0.0), whole),
            ("ep_combine", np.where(routes, self.routed_s - dispatch_s, 0.0), routed * (1.0 - sent)),
            ("moe_all_reduce", np.where(many & ~with_dp, self.reduced_s, 0.0), whole),
        )


EXCHANGES = ("dp_gather", "ep_dispatch", "dp_scatter", "ep_combine", "moe_all_reduce")
"""Collectives around the experts; the first two come before them."""


def exchange_ways(
    links: Links,
    layout: LayoutColumns,
    placement: Placement,
    group_tokens: Floats,
    busiest_share: Floats,
    token_bytes: Floats,
    dispatch_bytes: Floats,
) -> ExchangeWays:
    """Cost of every way. `busiest_share` is the largest rank's share of `group_tokens` over the mean rank's."""
    ranks, domains = layout.width, placement.stage_domains
    message = group_tokens * token_bytes
    volume = group_tokens * busiest_share / ranks * (dispatch_bytes + token_bytes)
    start = 2.0 * links.exchange_t0_s + np.where(
        domains > 1.0, 2.0 * (links.remote_t0_s + links.remote_hop_s * np.log2(domains)), 0.0
    )
    # low latency sends a copy per expert, the throughput kernels one per domain and forward it inside;
    # the two tiers overlap, since a token is forwarded while others still arrive
    near, far = volume / links.exchange_bytes_per_s, volume / links.remote_bytes_per_s
    latency = np.maximum(placement.expert_copies * near, placement.expert_copies_remote * far)
    throughput = np.maximum(placement.rank_copies * near, placement.domain_copies * far) + 2.0 * links.normal_t0_s
    copies = latency <= throughput
    return ExchangeWays(
        reduced_s=all_reduce_s(links, ranks, domains, message),
        gather_s=gather_s(links, ranks, domains, message * dispatch_bytes / token_bytes),
        scatter_s=gather_s(links, ranks, domains, message),
        routed_start_s=start + np.where(copies, 0.0, 2.0 * links.normal_t0_s),
        routed_s=start + np.minimum(latency, throughput),
        message_bytes=message,
        routed_bytes=volume * np.where(copies, placement.expert_copies, placement.rank_copies),
        dispatch_width_frac=dispatch_bytes / token_bytes,
    )


def expert_exchange_s(
    links: Links,
    layout: LayoutColumns,
    placement: Placement,
    group_tokens: Floats,
    busiest_share: Floats,
    token_bytes: Floats,
    dispatch_bytes: Floats,
) -> Floats:
    """Getting the tokens of a stage to their experts and back the fastest way, once per MoE layer."""
    ways = exchange_ways(links, layout, placement, group_tokens, busiest_share, token_bytes, dispatch_bytes)
    return ways.fastest_s(layout)


def pipeline_send_s(links: Links, layout: LayoutColumns, placement: Placement, message_bytes: Floats) -> Floats:
    """Handing a micro-batch's hidden states to the next stage: each TP rank sends its slice."""
    slice_bytes = message_bytes / layout.attn_tp
    inside = links.send_t0_s + slice_bytes / links.send_bytes_per_s
    between = links.send_t0_s + links.remote_t0_s + slice_bytes / links.remote_bytes_per_s
    return np.where(layout.pp > 1.0, np.where(placement.pp_crosses > 0, between, inside), 0.0)
