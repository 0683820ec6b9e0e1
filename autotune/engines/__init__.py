"""The serving engines: how each splits a model and which layouts it takes."""

from autotune.engines.layout_rules import RULES, Violation
from autotune.engines.names import ANY, ENGINES, split_layers

__all__ = ["ANY", "ENGINES", "RULES", "Violation", "split_layers"]
