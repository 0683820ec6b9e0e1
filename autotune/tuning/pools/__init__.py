"""Disaggregated plans: one pool of GPUs that prefills, one that decodes, and the KV transfer between them."""
