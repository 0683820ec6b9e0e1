"""How each row of a batch is started to send tokens to the ranks of their experts: as its export starts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from autotune.engines import ENGINES
from autotune.engines.dtype_facts import Place
from autotune.engines.low_latency import ANY_KERNELS, ExchangeKernels
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.plan.columns import Floats, Ints
from costmodel.plan.exchange_backend import ExchangeBackend
from costmodel.serving.load import Load


def with_backend(
    batch: PlanBatch, entries: Sequence[PlanEntry], index: Ints, load: Load, bounds: Mapping[str, Floats]
) -> PlanBatch:
    """The batch with the kernels that each row's engine, model, layout and token budget allow.

    Where the buffer of low-latency kernels leaves no KV room for one request, or where they are slower even in steps of
    the whole token budget, tokens are gathered instead.

    Args:
        batch: of shape `(num_rows,)`.
        entries: that it was made of.
        index: entry of each row.
        load: with the token budgets of the rows, shape `(num_rows,)`; what else it asks does not matter.
        bounds: `longest_prompt` and `memory_fraction`, as `PlanBatch.memory` takes them.
    """
    known: dict[tuple[int, float], ExchangeKernels] = {}
    budgets = np.broadcast_to(load.batched_tokens, index.shape)
    rows = []
    for place, budget in zip(index.tolist(), budgets.tolist(), strict=True):
        key = (place, budget)
        if key not in known:
            known[key] = _kernels(entries[place], int(budget))
        rows.append(known[key])
    shards = [_shards(entry) for entry in entries]
    if all(found is ANY_KERNELS for found in known.values()) and not any(map(any, shards)):
        return batch
    gathered, routed = np.array(shards, dtype=np.float64)[index].T
    backend = _columns(rows, routed)
    one_each = replace(load, concurrency=batch.layout.replicas * batch.layout.attn_dp)
    asked = replace(batch, backend=backend)
    fits = asked.memory(one_each, **bounds).kv_fits_longest >= 1.0
    full = budgets * batch.layout.attn_dp
    for exchange in asked.machine.exchanges.values():
        fits = fits & exchange.routing_pays(full)
    fits = np.where(fits | (backend.bytes_per_token == 0.0), 1.0, 0.0)
    sends = backend.bytes_per_token * fits > 0.0
    kept = replace(
        backend,
        low_latency=backend.low_latency * fits,
        throughput=backend.throughput * fits,
        shared_shards=np.where(sends, routed, gathered),
    )
    return replace(batch, backend=kept)


def _kernels(entry: PlanEntry, budget: int) -> ExchangeKernels:
    layout = entry.layout
    if not entry.arch.is_moe or layout.moe_ep == 1 or layout.attn_dp == 1:
        return ANY_KERNELS  # sends no token to a single rank
    engine = ENGINES[entry.engine.name]
    place = Place(arch=entry.arch, gpu=entry.cluster.gpu)
    return engine.exchange_kernels(place, layout, version=entry.engine_version, budget=budget)


def _shards(entry: PlanEntry) -> tuple[int, int]:
    """Shards of the shared experts where tokens are gathered, and where they are sent; 0: as attention, or none."""
    if not any(e.shared_width for e in entry.arch.expert_shapes):
        return 0, 0
    own = ENGINES[entry.engine.name].shared_expert_shards
    found = [own(entry.arch, entry.layout, routed=routed) for routed in (False, True)]
    gathered, routed = (0 if n == entry.layout.attn_tp else n for n in found)
    return gathered, routed


def _columns(rows: Sequence[ExchangeKernels], shared_shards: Floats) -> ExchangeBackend:
    def column(name: str) -> Floats:
        return np.array([float(getattr(row, name)) for row in rows])

    return ExchangeBackend(
        low_latency=column("low_latency"),
        throughput=column("throughput"),
        bytes_per_token=column("bytes_per_token"),
        tokens=column("tokens"),
        beside_bytes=column("beside_bytes"),
        least_bytes=column("least_bytes"),
        shared_shards=shared_shards,
    )


def without_exchange_buffer(batch: PlanBatch) -> PlanBatch:
    """The same, where nothing is started that keeps a buffer."""
    return replace(batch, backend=batch.backend.without_buffer())
