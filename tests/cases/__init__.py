"""Inputs from public reports that were read wrong once, with what is right of each; they lie beside the repository."""
