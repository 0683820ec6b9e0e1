"""Tests of traffic as input."""
