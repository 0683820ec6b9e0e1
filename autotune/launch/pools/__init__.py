"""Launch files of disaggregated plans: the processes of both pools, what joins them, and the front before them."""
