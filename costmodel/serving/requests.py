"""The requests that a service is asked to answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKind:
    """Requests of one pair of lengths, and how common they are."""

    isl: float
    """Prompt length, tokens."""
    osl: float
    """Output length, tokens."""
    weight: float
    """Share of the requests."""
