"""The engines' schedulers: which prompts run in a step, beside what, and who gets cache."""

from costmodel.simulation.policies.base import Policy
from costmodel.simulation.policies.chunked import CHUNKED
from costmodel.simulation.policies.no_evict import NO_EVICT
from costmodel.simulation.policies.prefill_first import PREFILL_FIRST

__all__ = ["CHUNKED", "NO_EVICT", "PREFILL_FIRST", "Policy"]
