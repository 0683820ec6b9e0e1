"""Plans served by simulation: requests drawn or recorded, percentiles over them, and limits on those."""
