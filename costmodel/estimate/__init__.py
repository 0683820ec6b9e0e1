"""Whole plans estimated: the steady state with what the calibration knows of its error."""
