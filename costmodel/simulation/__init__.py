"""A server simulated event by event: its scheduler, its steps as the cost model prices them, each of its requests."""
