"""The plan space: layouts an engine accepts, and the rules that forbid the others."""
