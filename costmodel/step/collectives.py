"""Seconds of collectives, by the tier that their group lies in.

Inside one scale-up domain a collective is one latency and `bytes / bandwidth`; across domains it is
hierarchical, as NCCL and DeepEP run it: reduce inside, exchange between domains, spread inside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from costmodel.plan.columns import Columns, Floats, LayoutColumns
from costmodel.plan.exchange_backend import ANY_BACKEND, ExchangeBackend
from costmodel.plan.placement import Placement, TokenCopies


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A collective's seconds: a start, and so much for each byte of its message. 0 for one rank."""

    start_s: Floats
    s_per_byte: Floats

    def seconds(self, message_bytes: Floats) -> Floats:
        """Of one call."""
        return self.start_s + message_bytes * self.s_per_byte


def _tiers(local: Floats, domains: Floats, inside: tuple[Floats, Floats], between: tuple[Floats, Floats]) -> Law:
    """Start and seconds per byte inside a domain and between domains, each where the group has several."""
    start, per_byte = (
        np.where(local > 1.0, near, 0.0) + np.where(domains > 1.0, far, 0.0)
        for near, far in zip(inside, between, strict=True)
    )
    return Law(start_s=start, s_per_byte=per_byte)


def all_reduce(links: Links, ranks: Floats, domains: Floats) -> Law:
    """All-reduce of a message over `ranks` GPUs that lie in `domains` domains.

    A ring or a one-shot kernel moves `2 (n - 1) / n` of the message through each link (Patarasuk and Yuan,
    2009); between domains each rank of a domain carries its share of the message.
    """
    local = ranks / domains
    return _tiers(
        local,
        domains,
        (
            links.all_reduce_t0_s + links.all_reduce_rank_s * np.maximum(local - 2.0, 0.0),
            2.0 * (local - 1.0) / local / links.all_reduce_bytes_per_s,
        ),
        (
            2.0 * (links.remote_t0_s + links.remote_hop_s * np.log2(domains)),
            2.0 * (domains - 1.0) / domains / local / links.remote_bytes_per_s,
        ),
    )


def gather(links: Links, ranks: Floats, domains: Floats) -> Law:
    """All-gather or reduce-scatter of a whole over the group: half an all-reduce's bytes."""
    local = ranks / domains
    return _tiers(
        local,
        domains,
        (links.exchange_t0_s + 0.0 * local, (local - 1.0) / local / links.exchange_bytes_per_s),
        (
            links.remote_t0_s + links.remote_hop_s * np.log2(domains),
            (domains - 1.0) / domains / local / links.remote_bytes_per_s,
        ),
    )


EXCHANGES = ("dp_gather", "ep_dispatch", "dp_scatter", "ep_combine", "moe_all_reduce")
"""Collectives around the experts; the first two come before them."""
NEVER_S = 1e6
"""Of an exchange by kernels that a server is not started with: longer than any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Getting a stage's tokens to their experts and back, once per MoE layer.

    Without attention-DP every rank holds all tokens and the partial sums are all-reduced over the stage. With
    it, the engine either gathers all tokens and scatters the sums (any `moe_tp`), or sends each token only to
    the ranks of its experts (`moe_tp` = 1) by the kernels of its backend: whichever is faster. Two-batch overlap needs
    the latter.

    Of the latter, low-latency kernels send a copy per expert, throughput kernels one per domain and forward it inside
    (DeepEP); the two tiers overlap, since a token is forwarded while others still arrive.
    """

    layout: LayoutColumns
    reduce: Law
    gather: Law
    start_s: Floats
    """Of dispatch and combine together, what does not grow with the tokens."""
    copies_s_per_byte: Floats
    """Low-latency kernels: per byte that one rank dispatches and takes back, a copy of each token counted."""
    forwards_s_per_byte: Floats
    """The same of the throughput kernels."""
    forwards_start_s: Floats
    """What those add to the start."""
    copies: Floats
    """Of a token that leaves its rank, low-latency kernels."""
    forwards: Floats
    """The same of the throughput kernels."""
    token_bytes: Floats
    """The hidden state of a token, as it is combined."""
    dispatch_bytes: Floats
    """The same as it is dispatched."""
    backend: ExchangeBackend

    @classmethod
    def of(  # noqa: PLR0913  # one for each thing that messages follow from
        cls,
        links: Links,
        layout: LayoutColumns,
        placement: Placement,
        experts_per_token: Floats,
        token_bytes: Floats,
        dispatch_bytes: Floats,
        backend: ExchangeBackend = ANY_BACKEND,
    ) -> Exchange:
        """What of it does not change from step to step."""
        ranks, domains = layout.width, placement.stage_domains
        copies = TokenCopies.of(layout, placement, experts_per_token)
        near, far = 1.0 / links.exchange_bytes_per_s, 1.0 / links.remote_bytes_per_s
        remote = 2.0 * (links.remote_t0_s + links.remote_hop_s * np.log2(domains))
        return cls(
            layout=layout,
            reduce=all_reduce(links, ranks, domains),
            gather=gather(links, ranks, domains),
            start_s=2.0 * links.exchange_t0_s + np.where(domains > 1.0, remote, 0.0),
            copies_s_per_byte=np.maximum(copies.to_experts * near, copies.to_experts_remote * far),
            forwards_s_per_byte=np.maximum(copies.to_ranks * near, copies.to_domains * far),
            forwards_start_s=2.0 * links.normal_t0_s,
            copies=copies.to_experts,
            forwards=copies.to_ranks,
            token_bytes=token_bytes,
            dispatch_bytes=dispatch_bytes,
            backend=backend,
        )

    def seconds(self, group_tokens: Floats, busiest_share: Floats) -> Floats:
        """Dispatch and combine the fastest way that the layout allows; 0 for one rank.

        `busiest_share` is the largest rank's share of `group_tokens` over the mean rank's.
        """
        layout = self.layout
        gathered, routed = self._gathered_s(group_tokens), self._routed_s(self._volume(group_tokens, busiest_share))
        best = np.where(layout.two_batch_overlap > 0.0, routed, np.minimum(gathered, routed))
        with_dp = np.where(layout.moe_tp > 1.0, gathered, best)
        reduced = self.reduce.seconds(group_tokens * self.token_bytes)
        return np.where(layout.width > 1.0, np.where(layout.attn_dp > 1.0, with_dp, reduced), 0.0)

    def routing_pays(self, group_tokens: Floats) -> NDArray[np.bool_]:
        """Whether sending so many tokens to the ranks of their experts is faster than gathering all of them."""
        return np.asarray(self._routed_s(self._volume(group_tokens, np.ones(1))) < self._gathered_s(group_tokens))

    def phases(self, group_tokens: Floats, busiest_share: Floats) -> tuple[tuple[str, Floats, Floats], ...]:
        """The same by collective: name (of `EXCHANGES`), seconds (0 where the plan has none), bytes of one rank."""
        layout, whole = self.layout, group_tokens * self.token_bytes
        volume = self._volume(group_tokens, busiest_share)
        routed, copied = self._routed_s(volume), self._copied(volume)
        many = layout.width > 1.0
        with_dp = many & (layout.attn_dp > 1.0)
        slower = (self._gathered_s(group_tokens) <= routed) & (layout.two_batch_overlap == 0.0)
        gathers = with_dp & ((layout.moe_tp > 1.0) | slower)
        routes = with_dp & ~gathers
        sent = self.dispatch_bytes / (self.dispatch_bytes + self.token_bytes)
        start = self.start_s + np.where(copied, 0.0, self.forwards_start_s)
        dispatch = start / 2.0 + sent * (routed - start)
        moved = volume * np.where(copied, self.copies, self.forwards)
        narrow = group_tokens * self.dispatch_bytes
        return (
            ("dp_gather", np.where(gathers, self.gather.seconds(narrow), 0.0), narrow),
            ("ep_dispatch", np.where(routes, dispatch, 0.0), moved * sent),
            ("dp_scatter", np.where(gathers, self.gather.seconds(whole), 0.0), whole),
            ("ep_combine", np.where(routes, routed - dispatch, 0.0), moved * (1.0 - sent)),
            ("moe_all_reduce", np.where(many & ~with_dp, self.reduce.seconds(whole), 0.0), whole),
        )

    def _volume(self, group_tokens: Floats, busiest_share: Floats) -> Floats:
        """Bytes that the busiest rank dispatches and takes back, if each of its tokens went once."""
        return group_tokens * busiest_share * ((self.dispatch_bytes + self.token_bytes) / self.layout.width)

    def _gathered_s(self, group_tokens: Floats) -> Floats:
        """Gather of all tokens, and scatter of the sums."""
        return 2.0 * self.gather.start_s + group_tokens * (
            (self.dispatch_bytes + self.token_bytes) * self.gather.s_per_byte
        )

    def _routed_s(self, volume: Floats) -> Floats:
        return self.start_s + np.minimum(*self._by_kernels_s(volume))

    def _copied(self, volume: Floats) -> Floats:
        """Where the low-latency kernels are the faster ones."""
        copied, forwarded = self._by_kernels_s(volume)
        return np.asarray(copied <= forwarded)

    def _by_kernels_s(self, volume: Floats) -> tuple[Floats, Floats]:
        """Of the low-latency and of the throughput kernels, what both start with left out."""
        copied, forwarded = volume * self.copies_s_per_byte, volume * self.forwards_s_per_byte + self.forwards_start_s
        has = self.backend
        return np.where(has.low_latency > 0, copied, NEVER_S), np.where(has.throughput > 0, forwarded, NEVER_S)


def pipeline_send(links: Links, layout: LayoutColumns, placement: Placement) -> Law:
    """Handing a micro-batch's hidden states to the next stage: each TP rank sends its slice."""
    crosses, many = placement.pp_crosses > 0, layout.pp > 1.0
    start = links.send_t0_s + np.where(crosses, links.remote_t0_s, 0.0)
    rate = np.where(crosses, links.remote_bytes_per_s, links.send_bytes_per_s)
    return Law(start_s=np.where(many, start, 0.0), s_per_byte=np.where(many, 1.0 / (rate * layout.attn_tp), 0.0))
