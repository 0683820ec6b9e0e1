"""Pages and pictures of the documentation that are made from the code and from what commands answer."""
