"""How each row of a batch is started to send tokens to the ranks of their experts: as its export starts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from autotune.engines import ENGINES
from autotune.engines.low_latency import ANY_KERNELS, ExchangeKernels
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.plan.columns import Floats, Ints
from costmodel.plan.exchange_backend import ANY_BACKEND, ExchangeBackend
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
    if all(found is ANY_KERNELS for found in known.values()):
        return batch
    backend = _columns(rows)
    one_each = replace(load, concurrency=batch.layout.replicas * batch.layout.attn_dp)
    asked = replace(batch, backend=backend)
    fits = asked.memory(one_each, **bounds).kv_fits_longest >= 1.0
    full = budgets * batch.layout.attn_dp
    for exchange in asked.machine().exchanges.values():
        fits = fits & exchange.routing_pays(full)
    fits = np.where(fits | (backend.bytes_per_token == 0.0), 1.0, 0.0)
    kept = replace(backend, low_latency=backend.low_latency * fits, throughput=backend.throughput * fits)
    return replace(batch, backend=kept)


def _kernels(entry: PlanEntry, budget: int) -> ExchangeKernels:
    layout = entry.layout
    if not entry.arch.is_moe or layout.moe_ep == 1 or layout.attn_dp == 1:
        return ANY_KERNELS  # sends no token to a single rank
    engine = ENGINES[entry.engine.name]
    return engine.exchange_kernels(entry.arch, layout, version=entry.engine_version, budget=budget)


def _columns(rows: Sequence[ExchangeKernels]) -> ExchangeBackend:
    def column(name: str) -> Floats:
        return np.array([float(getattr(row, name)) for row in rows])

    return ExchangeBackend(
        low_latency=column("low_latency"),
        throughput=column("throughput"),
        bytes_per_token=column("bytes_per_token"),
        tokens=column("tokens"),
    )


def without_exchange_buffer(batch: PlanBatch) -> PlanBatch:
    """The same, where nothing is started that keeps a buffer."""
    return replace(batch, backend=ANY_BACKEND)
