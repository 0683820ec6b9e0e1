"""What launch files are written for: shells, Compose, Kubernetes, Dynamo."""
