"""What the hardware is: GPU types with the source of every number."""
