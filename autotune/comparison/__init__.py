"""The plan in production against a candidate: what differs, how sure that is, what the switch takes, and a verdict."""

from autotune.comparison.compare_plans import compare, on_traffic
from autotune.comparison.values import ComparedPlan, Comparison, SwitchCost, Verdict

__all__ = ["ComparedPlan", "Comparison", "SwitchCost", "Verdict", "compare", "on_traffic"]
