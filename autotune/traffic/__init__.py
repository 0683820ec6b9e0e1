"""Traffic as input: request logs and metrics of running servers, and the workload profile that is made of them."""
