"""Efficiencies as data, and how they are fitted."""
