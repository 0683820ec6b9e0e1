"""The plan in production against a candidate: what differs, how sure that is, what the switch takes, and a verdict."""

from autotune.comparison.compare_plans import compare, on_traffic
from autotune.comparison.values import Comparison, Side, SwitchCost, Verdict

__all__ = ["Comparison", "Side", "SwitchCost", "Verdict", "compare", "on_traffic"]
