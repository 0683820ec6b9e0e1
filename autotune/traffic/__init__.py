"""Traffic as input: request logs and metrics of running servers, and the workload profile that is made of them."""

from autotune.traffic.profile import WorkloadProfile, profile_from_json, profile_of_arrays
from autotune.traffic.rates import Rate

__all__ = ["Rate", "WorkloadProfile", "profile_from_json", "profile_of_arrays"]
