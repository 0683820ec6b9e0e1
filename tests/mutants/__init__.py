"""Seeded mistakes in the physics and in the ranking, each of which some test must notice: `python -m tests.mutants`."""

from __future__ import annotations

from tests.mutants.physics import PHYSICS
from tests.mutants.ranking import RANKING
from tests.mutants.serving import SERVING

CHANGES = (*PHYSICS, *SERVING, *RANKING)

__all__ = ["CHANGES"]
