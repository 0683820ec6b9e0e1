"""What a plan runs, as a graph that can be scheduled, drawn, traced and replayed."""

from autotune.graph.plan import plan_graph
from autotune.graph.values import InvalidPlanError, PlanGraph

__all__ = ["InvalidPlanError", "PlanGraph", "plan_graph"]
