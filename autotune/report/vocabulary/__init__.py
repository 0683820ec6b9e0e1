"""What figures are called, and how they are written, wherever a person reads them."""
