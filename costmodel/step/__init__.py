"""What one forward pass takes: operators, collectives and memory of a step, before any queueing."""
