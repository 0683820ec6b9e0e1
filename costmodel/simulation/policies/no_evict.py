"""TensorRT-LLM: in-flight batching of prompts and decoding sequences, GUARANTEED_NO_EVICT.

A request is admitted once the cache has room for its prompt and all its output (the default capacity scheduler).
"""

from __future__ import annotations

from costmodel.simulation.policies.base import Policy
from costmodel.simulation.state import Cell, CellLimits, Request


class NoEvict(Policy):
    """Prompts beside decoding; cache reserved whole."""

    mixes = True
    reserves_whole = True

    def fits(self, cell: Cell, request: Request, limits: CellLimits) -> bool:
        """Room for the whole request; with nothing running, anything starts."""
        return cell.held + self.reserved(request) <= limits.kv_tokens or not (cell.decoding or cell.prefilling)


NO_EVICT = NoEvict()
