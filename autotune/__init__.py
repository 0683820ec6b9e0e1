"""Choose how to spread an LLM over a GPU cluster for serving."""
