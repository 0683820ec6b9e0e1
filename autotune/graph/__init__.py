"""What a plan runs, as a graph that can be scheduled, drawn, traced and replayed."""

from autotune.graph.export import FORMATS, write_graph
from autotune.graph.plan import plan_graph
from autotune.graph.values import COLLAPSES, PHASES, InvalidPlanError, PlanGraph

__all__ = ["COLLAPSES", "FORMATS", "PHASES", "InvalidPlanError", "PlanGraph", "plan_graph", "write_graph"]
