"""What the model is: architectures, their readers and their parameter counts."""
