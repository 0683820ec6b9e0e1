"""Tests of `autotune evaluate`."""
