"""Numbers and foreign text in sentences and files."""
