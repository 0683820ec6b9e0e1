"""Plans served by simulation: requests drawn or recorded, percentiles over them, and limits on those."""

from autotune.simulation.draw_requests import recorded_requests, study_requests
from autotune.simulation.goodput import goodput
from autotune.simulation.percentile_limits import PercentileLimit, percentile_limits, request_bounds
from autotune.simulation.queue_growth import queue_grows
from autotune.simulation.report_simulation import simulation_document
from autotune.simulation.simulate_plan import (
    REQUESTS_OF_ONE,
    PlanSimulation,
    Traffic,
    closed_loop,
    plan_server,
    recorded_traffic,
    simulate_plan,
    study_traffic,
)

__all__ = [
    "REQUESTS_OF_ONE",
    "PercentileLimit",
    "PlanSimulation",
    "Traffic",
    "closed_loop",
    "goodput",
    "percentile_limits",
    "plan_server",
    "queue_grows",
    "recorded_requests",
    "recorded_traffic",
    "request_bounds",
    "simulate_plan",
    "simulation_document",
    "study_requests",
    "study_traffic",
]
