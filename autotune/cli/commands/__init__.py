"""Definitions of the commands: options and help alone; what a command runs is imported when it runs."""
