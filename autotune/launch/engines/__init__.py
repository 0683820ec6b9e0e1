"""Each engine's processes and flags, checked against the options that its version knows."""
