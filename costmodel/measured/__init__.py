"""Measured serving runs: read, predicted, and learnt from."""
