"""What we export, read by the engines' own code: `make engines`."""
