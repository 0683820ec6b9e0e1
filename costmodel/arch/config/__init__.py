"""Reading config.json, and what lies beside it, as an architecture."""
