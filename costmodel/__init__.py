"""The cost model: what a plan costs in seconds and bytes. Knows nothing of search."""
