"""Time laws of single kernels and collectives."""
