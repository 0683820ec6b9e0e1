"""The table of dtypes that engines do not read weights in, or keep caches in."""

from __future__ import annotations

from autotune.engines import ENGINES
from autotune.engines.dtype_facts import MULTIPLIED_INT8, dtype_facts
from autotune.engines.options import version_key
from costmodel.dtypes import KV_BYTES, storage
from costmodel.hardware.catalog import GENERATIONS


def test_each_fact_says_where_it_was_read() -> None:
    """Of a known engine, of dtypes and generations that there are, with a source and versions that order."""
    for fact in dtype_facts():
        assert fact.engine in ENGINES
        assert fact.feature in ("no_weights", "no_cache", "no_low_latency")
        assert len(fact.source) > 40
        assert all(bound is None or version_key(bound) for bound in (fact.since, fact.until))
        assert all(any(known.startswith(gpu) for known in GENERATIONS) for gpu in fact.gpus)
        if fact.feature == "no_cache":
            assert fact.dtypes <= KV_BYTES.keys()
        else:
            assert all(storage(dtype).base == dtype for dtype in fact.dtypes - {MULTIPLIED_INT8})
