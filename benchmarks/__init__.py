"""Speed of the model and of whole commands: run, not tested. `python -m benchmarks`."""
