"""What figures, limits, parts and verdicts are called, and how they are written: the same wherever a person reads."""
