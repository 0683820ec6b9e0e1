"""A server simulated event by event: its scheduler, its steps as the cost model prices them, its requests one by one."""
