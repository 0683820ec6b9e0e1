"""Traffic as input: request logs and metrics of running servers, and the workload profile that is made of them."""

from autotune.traffic.profile import WorkloadProfile, profile_from_json, profile_of_arrays
from autotune.traffic.rates import Rate
from autotune.traffic.read import read_traffic
from autotune.traffic.traffic_log import TrafficLog

__all__ = ["Rate", "TrafficLog", "WorkloadProfile", "profile_from_json", "profile_of_arrays", "read_traffic"]
