"""Charts as values: axes, shapes, and the pictures made of them, for a page or a file of their own."""
