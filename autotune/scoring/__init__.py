"""Scoring plans: their knobs, limits and objective, and how sure the ranking is."""
