"""How a server is started to send tokens to the ranks of their experts: which kernels it has, and their buffer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from costmodel.plan.columns import Columns, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeBackend(Columns):
    """Kernels of an all-to-all. Shape `(num_plans,)` or `(1,)`.

    A plan with neither gathers all tokens of a stage on every rank.
    """

    low_latency: Floats
    """1 where a copy of a token may be sent to each of its experts, else 0."""
    throughput: Floats
    """1 where a token may be sent once to each domain and forwarded inside, else 0."""
    bytes_per_token: Floats
    """Of the buffer of the low-latency kernels on each GPU, for each token that a rank may send in a step."""
    tokens: Floats
    """That there is room for at least; more where a rank decodes more sequences."""
    beside_bytes: Floats
    """Of the memory on each GPU that the buffer lies in, what holds other things."""
    least_bytes: Floats
    """Of that memory at least."""
    shared_shards: Floats
    """Shards that the shared experts' weights are cut into; 0: as attention."""

    def buffer_bytes(self, sequences_per_rank: Floats) -> Floats:
        """Memory on each GPU for the buffer with so many sequences on a rank; 0 without the low-latency kernels."""
        buffer = self.bytes_per_token * np.maximum(self.tokens, sequences_per_rank)
        return self.low_latency * np.maximum(buffer + self.beside_bytes, self.least_bytes)

    def without_buffer(self) -> ExchangeBackend:
        """The same, where nothing is started that keeps a buffer."""
        none = np.zeros_like(self.bytes_per_token)
        return replace(self, bytes_per_token=none, beside_bytes=none, least_bytes=none)


ANY_BACKEND = ExchangeBackend(
    low_latency=np.ones(1),
    throughput=np.ones(1),
    bytes_per_token=np.zeros(1),
    tokens=np.zeros(1),
    beside_bytes=np.zeros(1),
    least_bytes=np.zeros(1),
    shared_shards=np.zeros(1),
)
"""Whatever is fastest, in no memory: of plans of which nobody knows how they are started, as measured runs are."""
