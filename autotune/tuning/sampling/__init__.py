"""Spaces too large to cover: what a sampler proposes, and what it remembers."""
